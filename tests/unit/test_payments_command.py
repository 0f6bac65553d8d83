"""Laws of `millrace payments` and `millrace relay` that need no broker: what they refuse, in one line that says why."""

from pathlib import Path

import pytest

from topologies.cli import main


class Half:
    """A gateway that cannot give back."""

    async def charge(self, charge: object) -> None: ...

    async def close(self) -> None: ...


def half(_settings: object) -> Half:
    return Half()


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--bootstrap", "127.0.0.1:1"])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.parametrize("command", ["payments", "relay"])
def test_a_database_without_tables_is_named_with_the_command_that_makes_them(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "millrace db migrate" in complaint(capsys, command)


@pytest.mark.parametrize(
    ("gateway", "says"),
    [
        ("nowhere.at.all:build", "cannot be loaded"),
        ("os:getcwd", "no function from settings"),
        ("test_payments_command:half", "cannot give_back"),
    ],
)
def test_what_is_no_gateway_is_refused_before_anything_is_asked_of_it(
    gateway: str, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert says in complaint(capsys, "payments", "--gateway", gateway)
