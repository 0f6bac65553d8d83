import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from topologies.cli import main
from topologies.cli.commands import COMMANDS


def test_every_command_has_its_line_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(command.name in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_can_be_registered(command: object) -> None:
    assert callable(import_module(command.module).register)  # type: ignore[attr-defined]  # a Command


def test_help_imports_no_command() -> None:
    script = (
        "import json, sys; from topologies.cli.commands import build; build(['--help'])\n"
        "heavy = {'faust', 'confluent_kafka', 'streams', 'psutil', 'msgspec'}\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["streams", "streams.errors"]


def test_an_operators_error_is_one_line_without_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["broker", "logs", "--home", str(tmp_path)])
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: there is no log")
    assert said.err.count("\n") == 1


def test_wrong_usage_exits_with_2() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["broker", "sideways"])
    assert ended.value.code == 2
