"""How Ctrl-C ends a command."""

import pytest
import typer

from topologies.cli.ending import INTERRUPTED, ended_by_signals


def test_a_ctrl_c_that_comes_while_a_function_of_c_runs_ends_a_command_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended, ended_by_signals(INTERRUPTED):
        raise SystemError("<built-in method> returned a result with an exception set") from KeyboardInterrupt()
    assert ended.value.exit_code == INTERRUPTED
    assert capsys.readouterr().err == "Stopped.\n"


def test_any_other_fault_of_the_system_is_told() -> None:
    with pytest.raises(SystemError, match="stack"), ended_by_signals(INTERRUPTED):
        raise SystemError("stack")
