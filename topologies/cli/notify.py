"""`millrace notify`: customers are told of their orders and payments, by log, mail and webhook."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from streams.errors import MillraceError
from topologies.cli.options import Bootstrap, Home, Json, MemberName, MemberState, PagesHost, PagesPort
from topologies.settings import LOOPBACK, Settings

if TYPE_CHECKING:
    from topologies.notifications.channels import Channel
    from topologies.notifications.delivering import Told

notify = typer.Typer(help="Tell customers of their orders: log, mail, webhook.", no_args_is_help=True)

Channels = Annotated[
    list[str] | None, typer.Option("--channel", help="log, smtp or webhook; may be given again. Else log.")
]
LogFile = Annotated[Path | None, typer.Option("--log", help="The file that the log goes to, a line each; else stdout.")]
Smtp = Annotated[str | None, typer.Option("--smtp", help="The mail server as host or host:port.")]
Security = Annotated[str, typer.Option("--security", help="Of the mail server: starttls, tls or none.")]
Sender = Annotated[str, typer.Option("--from", help="Whom mails are from.")]
To = Annotated[str, typer.Option("--to", help="Whom mails are to; {user} stands for the user's id.")]
Webhook = Annotated[str | None, typer.Option("--webhook", help="The url that notices are posted to, as JSON.")]
Tries = Annotated[int, typer.Option("--tries", min=1, help="Put a notice aside after so many; 6 take half a minute.")]
Group = Annotated[
    str | None,
    typer.Option("--group", help="A group of its own, so that one channel need not wait for what another has to do."),
]

KNOWN = ("log", "smtp", "webhook")


def register(app: typer.Typer) -> None:
    """Add `notify` to `millrace`."""
    app.add_typer(notify, name="notify")


@notify.command(epilog="Example: millrace notify run --channel log --log notices.jsonl")
def run(
    channel: Channels = None,
    log: LogFile = None,
    smtp: Smtp = None,
    security: Security = "starttls",
    sender: Sender = "shop@shop.example",
    to: To = "user-{user}@shop.example",
    webhook: Webhook = None,
    tries: Tries = 6,
    group: Group = None,
    name: MemberName = None,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: MemberState = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Tell customers what happens to their orders and payments, at least once each, until Ctrl-C.

    Start more of them to share the partitions. MILLRACE_SMTP_USERNAME and MILLRACE_SMTP_PASSWORD log in to the mail
    server, MILLRACE_WEBHOOK_SECRET signs what is posted. With --json one object says where its pages are, one at its
    end what it did.
    """
    from topologies.notifications.notifying import GROUP
    from topologies.notifications.running import run_notify

    chosen = _channels(channel, log, smtp, security, sender, to, webhook)
    settings = _settings(bootstrap, home, name, state)
    told = asyncio.run(
        run_notify(chosen, settings, group=group or GROUP, tries=tries, host=host, port=port, started=_started(json))
    )
    _print(told, json)


@notify.command(epilog="Example: millrace notify again --channel smtp --smtp mail.shop.example")
def again(
    channel: Channels = None,
    log: LogFile = None,
    smtp: Smtp = None,
    security: Security = "starttls",
    sender: Sender = "shop@shop.example",
    to: To = "user-{user}@shop.example",
    webhook: Webhook = None,
    tries: Tries = 6,
    group: Group = None,
    name: MemberName = None,
    port: PagesPort = None,
    host: PagesHost = LOOPBACK,
    state: MemberState = None,
    bootstrap: Bootstrap = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Send again what was put aside until now, each on the channel that it was for, then end.

    What fails again is put aside again. Notices for channels that are not given stay.
    """
    from topologies.notifications.notifying import GROUP
    from topologies.notifications.running import run_again

    chosen = _channels(channel, log, smtp, security, sender, to, webhook)
    settings = _settings(bootstrap, home, name, state)
    told, kept = asyncio.run(
        run_again(chosen, settings, group=group or GROUP, tries=tries, host=host, port=port, started=_started(json))
    )
    _print(told, json, kept=kept)


def _settings(bootstrap: str | None, home: Path | None, name: str | None, state: Path | None) -> Settings:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    return Settings.from_environment(bootstrap=bootstrap, home=home, name=name, state_dir=state)


def _channels(
    names: list[str] | None,
    log: Path | None,
    smtp: str | None,
    security: str,
    sender: str,
    to: str,
    webhook: str | None,
) -> "list[Channel]":
    """The channels that were asked for. Raises BadParameter for what does not go together."""
    chosen = list(dict.fromkeys(names or ["log"]))
    for one in chosen:
        if one not in KNOWN:
            raise typer.BadParameter(f"there is no channel {one!r}: give {', '.join(KNOWN)}")
    for given, option, needs in ((log, "--log", "log"), (smtp, "--smtp", "smtp"), (webhook, "--webhook", "webhook")):
        if given is not None and needs not in chosen:
            raise typer.BadParameter(f"{option} needs --channel {needs}")
    return [_channel(one, log, smtp, security, sender, to, webhook) for one in chosen]


def _channel(
    name: str, log: Path | None, smtp: str | None, security: str, sender: str, to: str, webhook: str | None
) -> "Channel":
    if name == "log":
        from topologies.notifications.channels import LogChannel

        return LogChannel(log, sys.stdout.buffer)
    if name == "smtp":
        return _mail(smtp, security, sender, to)
    from topologies.notifications.webhook import WebhookChannel

    if webhook is None:
        raise typer.BadParameter("--channel webhook needs --webhook URL")
    return WebhookChannel(webhook, os.environ.get("MILLRACE_WEBHOOK_SECRET") or None)


def _mail(smtp: str | None, security: str, sender: str, to: str) -> "Channel":
    try:
        from topologies.notifications.mail import PORTS, MailChannel, MailSettings
    except ImportError as error:
        raise MillraceError(f"{error.name} is not installed: pip install 'millrace[notify]'") from error
    if smtp is None:
        raise typer.BadParameter("--channel smtp needs --smtp HOST:PORT")
    if security not in PORTS:
        raise typer.BadParameter(f"--security is one of {', '.join(PORTS)}, not {security!r}")
    host, colon, port = smtp.rpartition(":")
    if colon and not (host and port.isdecimal() and int(port) < 65_536):
        raise typer.BadParameter(f"--smtp is host or host:port, not {smtp!r}")
    username, password = (os.environ.get(f"MILLRACE_SMTP_{one}") or None for one in ("USERNAME", "PASSWORD"))
    where: dict[str, Any] = {"security": security, "username": username, "password": password}
    return MailChannel(
        MailSettings(host if colon else smtp, int(port) if colon else PORTS[security], sender, to, **where)
    )


def _started(json: bool) -> Any:
    def started(url: str) -> None:
        # not to stdout, which is the log's unless that has a file
        said = f"telling customers, metrics at {url}/metrics; Ctrl-C ends it"
        typer.echo(orjson.dumps({"url": f"{url}/", "pid": os.getpid()}) if json else said, err=not json)

    return started


def _print(told: "Told", json: bool, **more: int) -> None:
    done = {"sent": told.sent, "triedAgain": told.tried_again, "putAside": told.put_aside, **more}
    if json:
        typer.echo(orjson.dumps({**done, "duplicates": told.duplicates}))
        return
    said = ", ".join(f"{count:,} by {name}" for name, count in told.sent.items())
    aside = ", ".join(f"{count:,} of {name}" for name, count in told.put_aside.items())
    kept = f"; {more['kept']:,} for other channels stay" if more.get("kept") else ""
    typer.echo(f"told {said or 'nothing'}" + (f"; put aside {aside}" if aside else "") + kept, err=True)
