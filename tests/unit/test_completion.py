"""Shells are asked for real: their completion function runs `millrace` as it would at a Tab."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from topologies.cli.commands import COMMANDS
from topologies.loading import OURS

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="there is no bash here")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory, with `millrace` in its bin."""
    directory = tmp_path_factory.mktemp("home")
    (directory / "bin").mkdir()
    script = directory / "bin" / "millrace"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from topologies.cli import main; main()" "$@"\n')
    script.chmod(0o755)
    return directory


def run(home: Path, *command: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    told = {**inherited, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=told, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at_tab(home: Path, *words: str, setup: str = 'eval "$(millrace --show-completion)"') -> list[str]:
    """What bash offers at a Tab after these words, the last of which is being typed."""
    script = (
        f'{setup}; function=$(complete -p millrace | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        'COMP_WORDS=(millrace "$@"); COMP_CWORD=$#; "$function" millrace; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert BASH is not None
    return run(home, BASH, "-c", script, "bash", *words).split()


@needs_bash
def test_bash_completes_commands_and_their_commands(home: Path) -> None:
    assert at_tab(home, "wor") == ["worker"]
    assert set(at_tab(home, "")) == {command.name for command in COMMANDS}
    assert set(at_tab(home, "broker", "")) == {"up", "down", "status", "logs", "fetch"}


@needs_bash
def test_bash_completes_options_of_the_command_that_was_named(home: Path) -> None:
    assert {"--name", "--port", "--bootstrap"} <= set(at_tab(home, "worker", "analytics", "--"))
    assert at_tab(home, "broker", "up", "--no") == ["--nodes"]


@needs_bash
def test_bash_completes_topologies_as_arguments_and_as_values(home: Path) -> None:
    assert set(at_tab(home, "worker", "")) == set(OURS)
    assert at_tab(home, "worker", "beh") == ["behaviour"]
    assert set(at_tab(home, "views", "--topology", "")) == set(OURS)
    assert at_tab(home, "digest", "--topology", "rec") == ["recommendations"]


@needs_bash
def test_bash_completes_what_follows_replay_as_topologies_and_commands(home: Path) -> None:
    offered = set(at_tab(home, "replay", ""))
    assert offered >= {*OURS, "list", "diff", "switch", "rollback", "drop"}
    assert not {word for word in offered if word.isupper()}
    assert at_tab(home, "replay", "ana") == ["analytics"]
    assert "--dry-run" in at_tab(home, "replay", "analytics", "--dr")


@needs_bash
def test_installing_it_once_is_enough_for_every_later_bash(home: Path) -> None:
    assert BASH is not None
    # the shell is the one that millrace was started from: of a lone command bash makes no process but itself
    run(home, BASH, "-c", "millrace --install-completion; exit $?")
    assert at_tab(home, "dig", setup="source ~/.bashrc") == ["digest"]


@pytest.mark.parametrize(
    ("shell", "said"), [("zsh", '_arguments \'*: :(("worker":'), ("fish", "worker\tRun a worker: consume")]
)
def test_zsh_and_fish_are_told_with_each_commands_line(home: Path, shell: str, said: str) -> None:
    asked = {
        "_MILLRACE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "millrace wor",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert run(home, "millrace", **asked).startswith(said)


def test_a_topic_is_not_offered_where_no_broker_answers(home: Path) -> None:
    script = (
        "import typer; from topologies.cli.completing import groups, topics\n"
        "ctx = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))\n"
        "ctx.params = {'bootstrap': '127.0.0.1:1'}; print(topics(ctx, ''), groups(ctx, ''))"
    )
    assert run(home, sys.executable, "-c", script) == "[] []\n"


@pytest.mark.parametrize("command", ["worker", "views"])
def test_completing_and_help_do_not_wait_for_what_only_running_needs(home: Path, command: str) -> None:
    script = (
        "import json, sys; from topologies.cli.commands import build; build(sys.argv[1:])\n"
        "heavy = {'faust', 'aiokafka', 'rocksdict', 'datasketches', 'aiohttp', 'confluent_kafka'}\n"
        "print(json.dumps([name for name in sys.modules if name.split('.')[0] in heavy]))"
    )
    assert json.loads(run(home, sys.executable, "-c", script, command)) == []
