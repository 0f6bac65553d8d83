"""`millrace notify` and `millrace archive`: wrong usage is code 2, what an operator can mend is one line and code 1."""

from pathlib import Path

import pytest

from topologies.cli import main

CLUSTER = ["--bootstrap", "127.0.0.1:1"]


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--channel", "pigeon"], "there is no channel 'pigeon'"),
        (["--channel", "webhook"], "needs --webhook"),
        (["--channel", "smtp"], "needs --smtp"),
        (["--channel", "smtp", "--smtp", "host:port"], "host or host:port"),
        (["--channel", "smtp", "--smtp", "host", "--security", "some"], "starttls, tls"),
        (["--webhook", "http://shop.example/"], "--webhook needs --channel webhook"),
        (["--tries", "0"], "--tries"),
    ],
)
@pytest.mark.parametrize("command", ["run", "again"])
def test_channels_that_cannot_be_are_wrong_usage(
    command: str, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    code, said = ended(capsys, "notify", command, *arguments, *CLUSTER)
    assert (code, says in said) == (2, True), said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--channel", "webhook", "--webhook", "shop.example"], "is no url"),
        (["--channel", "smtp", "--smtp", "mail", "--to", "all@shop.example"], "needs {user}"),
    ],
)
def test_settings_of_a_channel_that_cannot_be_are_told_at_the_start(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(capsys, "notify", "run", *arguments, *CLUSTER)
    assert (code, said.startswith("error: "), said.count("\n")) == (1, True, 1)
    assert says in said


@pytest.mark.parametrize(
    ("url", "says"), [("dir::memory://there", "only where there is none"), ("nonsense://there", "cannot be reached")]
)
@pytest.mark.parametrize("command", ["run", "check", "query"])
def test_a_storage_that_does_not_do_is_refused(
    command: str, url: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", "--to", url, *CLUSTER] if command == "run" else [command, "--from", url]
    code, said = ended(capsys, "archive", *given, *(["SELECT 1"] if command == "query" else []))
    assert (code, says in said, said.count("\n")) == (1, True, 1)


def test_an_archive_that_cannot_be_written_is_told_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, said = ended(capsys, "archive", "run", "--to", str(tmp_path / "file" / "lake"), *CLUSTER)
    assert code == 1
    assert "give another --to" in said


def test_a_query_that_is_none_is_answered_with_the_tables_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = ended(capsys, "archive", "query", "SELECT * FROM nowhere", "--from", str(tmp_path))
    assert code == 1
    assert "tables: none yet" in said


def test_an_empty_archive_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["archive", "check", "--from", str(tmp_path / "lake")])
    assert end.value.code == 0
    assert "nothing is archived" in capsys.readouterr().out
