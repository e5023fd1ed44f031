"""The command `nearmq`: runs it, and turns whatever goes wrong into one line for people or programs and an exit code.

`root_command.py` has the command itself, which needs the extra `cli`; this module imports nothing of that.
"""

import enum
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import orjson

from nearmq.errors import BY_CODE


class ExitCode(enum.IntEnum):
    """Every exit code of every `nearmq` command."""

    DONE = 0
    FAILED = 1
    USAGE = 2  #: a wrong argument or setting, or a part that is not installed
    UNREACHABLE = 3  #: the broker or the store
    PART_FAILED = 4  #: some rows or some jobs
    TIMED_OUT = 124
    INTERRUPTED = 130


_EXIT_CODES = {
    "INVALID_ARGUMENT": ExitCode.USAGE,
    "BROKER_UNAVAILABLE": ExitCode.UNREACHABLE,
    "STORE_UNAVAILABLE": ExitCode.UNREACHABLE,
    "TIMEOUT": ExitCode.TIMED_OUT,
    "DEADLINE": ExitCode.TIMED_OUT,
    "VERSION_TIMEOUT": ExitCode.TIMED_OUT,
}

_DOCTOR = "`nearmq doctor` looks for the cause step by step"
_HINTS = {
    "BROKER_UNAVAILABLE": _DOCTOR,
    "STORE_UNAVAILABLE": _DOCTOR,
    "PERMISSION_DENIED": _DOCTOR,
    "QUEUE_FULL": "workers are behind: run more of them, or try again later (docs/overload.md)",
    "TIMEOUT": "is a worker running (`nearmq worker run`)? --timeout waits longer",
    "INTERNAL": "NEARMQ_LOG_LEVEL=debug shows the traceback",
}


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors go to stderr, as JSON when the arguments hold `--json`."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # nearmq.amqp says the same in one line, with the fix
    try:
        try:
            code = _run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever reads has read enough: silence, as typer keeps it, and nothing may be flushed at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _report(error, as_json="--json" in arguments)
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        from nearmq.root_command import invoke  # noqa: PLC0415  needs the extra
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: the command needs {error.name}: pip install 'nearmq[cli]'\n")
        return ExitCode.USAGE
    return invoke(arguments)


def _report(error: Exception, *, as_json: bool) -> int:
    """Write the error to stderr and return its exit code."""
    code, message = code_of(error), _message(error)
    field, hint = getattr(error, "field", None), _HINTS.get(code)
    if code == "INTERNAL" and os.environ.get("NEARMQ_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    if as_json:
        facts = {"code": code, "message": message, "field": field, "hint": hint}
        line = orjson.dumps({"error": {name: fact for name, fact in facts.items() if fact is not None}}).decode()
    else:
        line = f"error: {code}: {message}" + (f"\nhint: {hint}" if hint else "")
    sys.stderr.write(f"{line}\n")
    return _EXIT_CODES.get(code, ExitCode.FAILED)


def code_of(error: Exception) -> str:
    """Return the closed code of an exception of any of the three distributions.

    The index store's exceptions carry no code (it knows nothing of the wire), but those that concern a job are named
    like the classes of `nearmq.errors`.
    """
    if isinstance(error, OSError):
        return "INVALID_ARGUMENT"  # a file that the command line names cannot be read or written
    by_name = {kind.__name__: code for code, kind in BY_CODE.items()}
    return getattr(error, "code", None) or by_name.get(type(error).__name__, "INTERNAL")


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return getattr(error, "message", None) or f"{type(error).__name__}: {error}"
