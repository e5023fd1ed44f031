"""`nearmq doctor`: the findings of `doctor.py` as a table or as JSON."""

import os
import sys
from typing import Annotated

import msgspec
import orjson
import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from nearmq import settings
from nearmq.cli import ExitCode
from nearmq.doctor import Finding, findings
from nearmq.tls_files import completed
from nearmq.topology import DEFAULT_PREFIX

_COLOURS = {"ok": "green", "note": "cyan", "problem": "yellow", "unreachable": "red"}


def doctor(
    *,
    url: Annotated[
        str, typer.Option(envvar="NEARMQ_URL", callback=completed, help="amqp[s]://user:password@host:port/vhost")
    ] = "amqp://guest:guest@localhost:5672/%2F",
    store: Annotated[
        str | None,
        typer.Option(
            envvar="NEARMQ_STORE", callback=completed, help="file:…, s3://… or redis://…; not tried when not set."
        ),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(envvar="NEARMQ_CACHE", callback=completed, help="redis://… before the store.")
    ] = None,
    signing_key_file: Annotated[
        str | None, typer.Option(envvar="NEARMQ_SIGNING_KEY_FILE", help="The keys of a signed store.")
    ] = None,
    prefix: Annotated[str, typer.Option(envvar="NEARMQ_PREFIX", help="First word of every name.")] = DEFAULT_PREFIX,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look for what is wrong with broker, store and settings, step by step, and say what to do about it."""
    given = {"url": url, "store": store, "cache": cache, "signing_key_file": signing_key_file}
    found = [
        *_settings(),
        *findings({name: value for name, value in given.items() if value is not None}, prefix=prefix),
    ]
    if as_json:
        sys.stdout.write(orjson.dumps({"findings": msgspec.to_builtins(found)}).decode() + "\n")
    else:
        _print_table(found)
    statuses = {finding.status for finding in found}
    if "unreachable" in statuses:
        raise typer.Exit(ExitCode.UNREACHABLE)
    if "problem" in statuses:
        raise typer.Exit(ExitCode.FAILED)


def _settings() -> list[Finding]:
    from nearmq.root_command import setting_names  # noqa: PLC0415  it has loaded this module

    unknown = settings.unknown(os.environ, setting_names())
    if not unknown:
        return [Finding(check="settings", status="ok", message="every NEARMQ_ variable is read by some command")]
    return [Finding(check="settings", status="problem", message=sentence) for sentence in unknown]


def _print_table(found: list[Finding]) -> None:
    table = Table("check", "", Column("finding", overflow="fold"), box=None)
    for finding in found:
        colour = _COLOURS[finding.status]
        table.add_row(finding.check, f"[{colour}]{finding.status}[/{colour}]", Text(finding.message))
    Console().print(table)
