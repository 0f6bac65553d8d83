"""What an examination says: findings with what mends them, and what is as it should be."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    ``check`` is the part that was looked at; ``problem`` a stable name for scripts, such as `topic-missing`; ``what``
    says it in one line with names and numbers; ``mend`` is the command that mends it, or begins to.
    An error stops something now or has lost something; a warning will, or may have.
    """

    check: str
    problem: str
    severity: Severity
    what: str
    mend: str


@dataclass(frozen=True)
class Fine:
    """Something that was looked at and is as it should be, in one line."""

    check: str
    what: str


@dataclass(frozen=True)
class Skipped:
    """Something that could not be looked at, and why; it is neither well nor a finding."""

    check: str
    what: str


Said = Finding | Fine | Skipped


@dataclass(frozen=True)
class Report:
    """Everything that was said, in the order in which it was looked at."""

    said: tuple[Said, ...]

    @property
    def findings(self) -> list[Finding]:
        """What is wrong, errors first, and each once: topologies share topics."""
        found = dict.fromkeys(one for one in self.said if isinstance(one, Finding))
        return sorted(found, key=lambda one: one.severity != "error")

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "healthy": self.healthy,
            "findings": [asdict(one) for one in self.findings],
            "fine": _of(Fine, self.said),
            "skipped": _of(Skipped, self.said),
        }

    def lines(self) -> list[str]:
        """The report as text: what is well, what could not be seen, then each finding with what mends it."""
        lines = [f"ok       {one.check:<9} {one.what}" for one in self.said if isinstance(one, Fine)]
        lines += [f"skipped  {one.check:<9} {one.what}" for one in self.said if isinstance(one, Skipped)]
        for one in self.findings:
            lines += [f"{one.severity:<8} {one.check:<9} {one.what}", f"{'':<18} mend: {one.mend}"]
        return [*lines, _verdict(self.findings)]


def _of(kind: type[Fine] | type[Skipped], said: Iterable[Said]) -> list[dict[str, Any]]:
    return [asdict(one) for one in said if isinstance(one, kind)]


def _verdict(findings: list[Finding]) -> str:
    if not findings:
        return "healthy"
    errors = sum(one.severity == "error" for one in findings)
    warnings = len(findings) - errors
    return f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
