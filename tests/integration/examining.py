"""`millrace doctor`, run in this process in the environment of a fleet, and what it says done."""

import json
import shlex
import subprocess
from collections.abc import Sequence

import pytest
from fleet import Fleet

from topologies.cli import main

Finding = dict[str, str]


class Examiner:
    """Runs `millrace` as an operator of a fleet would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._captured = monkeypatch, captured

    def run(self, fleet: Fleet, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was printed."""
        self._monkeypatch.delenv("MILLRACE_BOOTSTRAP", raising=False)
        for name, value in fleet.environment().items():
            if name.startswith("MILLRACE_"):
                self._monkeypatch.setenv(name, value)
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return int(ended.value.code or 0), self._captured.readouterr().out

    def findings(self, fleet: Fleet, *arguments: str, wait_s: float = 0.6) -> list[Finding]:
        """What the doctor finds, by its JSON; the exit code says whether it is anything."""
        code, said = self.run(fleet, "doctor", "analytics", "--json", "--wait", str(wait_s), *arguments)
        report = json.loads(said)
        assert report["healthy"] == (not report["findings"])
        assert code == (3 if report["findings"] else 0)
        found: list[Finding] = report["findings"]
        return found

    def mend(self, fleet: Fleet, finding: Finding, *more: str) -> None:
        """Do what the finding says: our own commands here, any other by the shell."""
        for command in finding["mend"].split(" && "):
            words = shlex.split(command, comments=True)
            if words[0] == "millrace":
                assert self.run(fleet, *words[1:], *more)[0] == 0
            else:
                subprocess.run(command, shell=True, check=True)


def problems(found: Sequence[Finding]) -> set[str]:
    return {one["problem"] for one in found}


def the(problem: str, found: Sequence[Finding]) -> Finding:
    """The one finding of that name."""
    matching = [one for one in found if one["problem"] == problem]
    assert len(matching) == 1, found
    return matching[0]
