"""What follows the tour notices when a command does otherwise than the tour says."""

from pathlib import Path

import pytest
from touring import Step, Visitor, sections, unseen

TEXT = """\
## Look

```console
$ echo one && \\
    echo two
one
two
```

```text
$ not typed
```

```console 2
$ export GREETING=hello
$ while sleep 0.05; do echo $GREETING; done
hello
…
```

```console 2
…
^C
```
"""


def test_blocks_of_a_console_are_steps_and_others_are_not() -> None:
    (section,) = sections(TEXT)
    assert [(step.terminal, step.command) for step in section.steps] == [
        (1, "echo one && \\\n    echo two"),
        (2, "export GREETING=hello"),
        (2, "while sleep 0.05; do echo $GREETING; done"),
        (2, None),
        (2, "^C"),
    ]
    assert section.steps[0].shown == ("one", "two")


def test_a_document_that_is_right_is_followed_to_its_end(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, {})
    try:
        for section in sections(TEXT):
            visitor.follow(section.steps)
    finally:
        visitor.close()


@pytest.mark.parametrize(
    ("command", "shown"),
    [("echo one", "two"), ("echo one; echo two", "one"), ("echo one; exit 3", "one"), ("echo", "one")],
)
def test_what_is_printed_otherwise_is_noticed(command: str, shown: str, tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, {})
    with pytest.raises(AssertionError, match="line 7"):
        visitor.follow([Step(7, 1, command, (shown,))])
    visitor.close()


def test_dots_stand_for_anything_within_a_line_and_for_any_lines() -> None:
    assert unseen(["a … c"], ["a b c\n"]) is None
    assert unseen(["a … c"], ["a b d\n"]) is not None
    assert unseen(["a", "…"], ["a\n", "b\n"]) is None
    assert unseen(["a"], ["a\n", "a\n"]) is not None


def test_ports_and_directories_are_replaced_in_commands_and_in_what_is_shown(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path, {}, {"~/there": str(tmp_path), ":8090": ":1"})
    visitor.follow([Step(1, 1, "echo ~/there http://here:8090/", ("~/there http://here:8090/",))])
    visitor.close()
    assert f"{tmp_path} http://here:1/" in (tmp_path / "terminal-1.log").read_text()
