"""The root of the command line: global options, settings, and sub-commands that are loaded when they are called."""

import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from nearmq import settings
from nearmq.errors import InvalidArgument
from nearmq.tls_files import TlsFiles

#: The entry points of sub-commands: each a Typer app, or a function that is one command.
COMMANDS_GROUP = "nearmq.commands"


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; a wrong command line is reported here, all else is raised."""
    try:
        outcome = get_command(app).main(list(arguments), prog_name="nearmq", standalone_mode=False)
    except typer.Abort:
        sys.stderr.write("aborted\n")
        return 1
    except typer.TyperException as error:
        return _report(error, as_json="--json" in arguments)
    return outcome if isinstance(outcome, int) else 0


class Commands(MutableMapping[str, Any]):
    """The sub-commands by name, each loaded when it is looked up, so that none pays for the imports of another."""

    def __init__(self) -> None:
        self._points = {point.name: point for point in entry_points(group=COMMANDS_GROUP)}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(self._points[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._points[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._points))

    def __len__(self) -> int:
        return len(self._points)


class RootGroup(TyperGroup):
    """A group over `Commands`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, without loading anything."""
        del ctx
        return list(self.commands)


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(*, asked: bool) -> None:
    if asked:
        sys.stdout.write(f"nearmq {version('nearmq')}\n")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None, typer.Option(envvar="NEARMQ_CONFIG", help="Read this file in place of ./nearmq.toml.")
    ] = None,
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(envvar="NEARMQ_TLS_CA_FILE", help="Authorities to trust for amqps and rediss."),
    ] = None,
    tls_cert_file: Annotated[
        Path | None, typer.Option(envvar="NEARMQ_TLS_CERT_FILE", help="A certificate to show to them.")
    ] = None,
    tls_key_file: Annotated[Path | None, typer.Option(envvar="NEARMQ_TLS_KEY_FILE", help="Its key.")] = None,
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Nearest-neighbour search as a message-queue job."""
    settings.apply(config)
    context.obj = TlsFiles(
        ca_file=_file(tls_ca_file, "NEARMQ_TLS_CA_FILE"),
        cert_file=_file(tls_cert_file, "NEARMQ_TLS_CERT_FILE"),
        key_file=_file(tls_key_file, "NEARMQ_TLS_KEY_FILE"),
    )


def _file(given: Path | None, variable: str) -> Path | None:
    """Look again at what a settings file may have set only after the root's own options were read."""
    return given or (Path(named) if (named := os.environ.get(variable)) else None)


def setting_names() -> set[str]:
    """Return the environment variables that any option of any command reads; loads every command."""
    groups, names = [get_command(app)], set()
    while groups:
        command: Any = groups.pop()
        names |= {option.envvar for option in command.params if isinstance(option.envvar, str)}
        groups += getattr(command, "commands", {}).values()
    return names


def _load(point: EntryPoint) -> Any:
    """Load a sub-command; one that cannot be loaded is replaced by a command that says so."""
    parent = typer.Typer(rich_markup_mode=None)
    try:
        target = point.load()
    except ImportError as error:
        _explain_instead(parent, point, error)
    else:
        if isinstance(target, typer.Typer):
            parent.add_typer(target, name=point.name)
        else:
            parent.command(point.name)(target)
    return get_group(parent).commands[point.name]


def _explain_instead(parent: typer.Typer, point: EntryPoint, error: ImportError) -> None:
    """Add a command of the same name that takes any arguments and only explains."""
    distribution = point.dist.name if point.dist else "nearmq"
    reason = f"the command {point.name!r} cannot be loaded: {error}; try pip install --upgrade '{distribution}[cli]'"
    any_arguments = {"ignore_unknown_options": True, "allow_extra_args": True}

    @parent.command(point.name, help=f"(not available: {error})", context_settings=any_arguments)
    def explain() -> None:
        raise InvalidArgument(reason)


def _report(error: typer.TyperException, *, as_json: bool) -> int:
    """Write a wrong command line's error, with the usage of the command that it was meant for."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
        sys.stderr.write(f"{message}\n")
    elif as_json:
        facts = {"code": "INVALID_ARGUMENT", "message": message}
        sys.stderr.write(orjson.dumps({"error": facts}).decode() + "\n")
    else:
        usage = f"{context.get_usage()}\nhint: '{context.command_path} --help' explains\n" if context else ""
        sys.stderr.write(f"error: {message}\n{usage}")
    return error.exit_code
