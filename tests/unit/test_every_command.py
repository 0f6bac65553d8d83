"""Laws that hold for each command of `millrace`, whichever it is."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer

from topologies.cli import main
from topologies.cli.commands import COMMANDS, STORY

# What follows `replay` is a topology, and the options say which of two commands that is.
TYPED: dict[tuple[str, ...], list[str]] = {
    ("replay", "TOPOLOGY --from"): ["replay", "analytics"],
    ("replay", "TOPOLOGY --as"): ["replay", "analytics"],
}


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    app = typer.Typer()
    app.callback()(lambda: None)
    for command in COMMANDS:
        import_module(command.module).register(app)
    yield from below((), typer.main.get_command(app))


def below(path: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands under a group, or the command itself."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, one in inner.items():
        yield from below((*path, name), one)


EVERY = list(commands())
each = pytest.mark.parametrize(("path", "command"), EVERY, ids=[" ".join(path) for path, _ in EVERY])


def words(path: tuple[str, ...]) -> list[str]:
    return TYPED.get(path, list(path))


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


@each
def test_its_answer_can_be_had_as_json(path: tuple[str, ...], command: Any) -> None:
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


@each
def test_its_help_says_what_it_does_and_has_an_example(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert ended(*words(path), "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert len((command.help or "").split()) >= 4
    typed = f"millrace {' '.join(words(path))}"
    assert typed in shown.replace(f"Usage: {typed}", "")


@each
def test_every_option_and_argument_is_described(path: tuple[str, ...], command: Any) -> None:
    assert [one.name for one in command.params if not (one.help or "").strip()] == []


@each
def test_an_option_that_is_none_is_wrong_usage(
    path: tuple[str, ...], command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(*words(path), "--sideways") == 2
    assert "--sideways" in capsys.readouterr().err


def test_exit_codes_are_told_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("0 done", "1 could not", "2 wrong usage", "3 looked, and found something", "130 ended by Ctrl-C"):
        assert code in STORY
    assert ended("--help") == 0
    assert "Exit codes" in capsys.readouterr().out
