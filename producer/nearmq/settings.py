"""Settings of the command line from files: flag > environment > .env > nearmq.toml > the user's nearmq.toml > default.

Every option that is a setting names its environment variable, `NEARMQ_` and the flag in capitals. So whatever the files
say becomes environment that was not set, once, before the command's own options are read; the library reads no file.

A nearmq.toml holds one line a setting, `store = "redis://localhost/0"`. What may hold a password can also be named by a
file of its own, in every place above: NEARMQ_URL_FILE, `url_file = "/run/secrets/broker"`.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from nearmq.errors import InvalidArgument

_PREFIX = "NEARMQ_"

#: The settings that may hold a password.
_SECRETS = ("NEARMQ_URL", "NEARMQ_STORE", "NEARMQ_CACHE")


def apply(config: Path | None) -> None:
    """Complete this process's environment with what the files say."""
    os.environ.update(read(Path.cwd(), os.environ, config))


def read(folder: Path, environment: Mapping[str, str], config: Path | None = None) -> dict[str, str]:
    """Return the variables to be set in addition to those of the environment.

    Args:
        folder: the project's; its .env and nearmq.toml are read when they are there.
        environment: what is set already, and wins; XDG_CONFIG_HOME and HOME say where the user's file is.
        config: read in place of the project's nearmq.toml; must exist.

    Raises:
        InvalidArgument: a file cannot be read, or holds what is no setting's value.
    """
    merged: dict[str, str] = {}
    for source, variables in (
        ("the environment", dict(environment)),
        (".env", _read_dotenv(folder / ".env")),
        (str(config or "nearmq.toml"), _read_toml(config or folder / "nearmq.toml", must_exist=config is not None)),
        ("the user's nearmq.toml", _read_toml(_user_folder(environment) / "nearmq.toml")),
    ):
        merged = _with_secrets(variables, source) | merged
    return {name: value for name, value in merged.items() if name not in environment}


def unknown(variables: Mapping[str, str], known: set[str]) -> list[str]:
    """Say which NEARMQ_ variables no option reads, each with the nearest that one does."""
    readable = known | {f"{name}_FILE" for name in _SECRETS}
    findings = []
    for name in sorted(variables):
        if name.startswith(_PREFIX) and name not in readable and not name.startswith("NEARMQ_TEST_"):
            nearest = difflib.get_close_matches(name, readable, n=1)
            findings.append(f"{name} is no setting" + (f", did you mean {nearest[0]}" if nearest else ""))
    return findings


def _user_folder(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/")) / ".config")
    return Path(base) / "nearmq"


def _read_dotenv(path: Path) -> dict[str, str]:
    # Without interpolation: a password may hold ${.
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}


def _read_toml(path: Path, *, must_exist: bool = False) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if must_exist:
            raise InvalidArgument(f"{path} does not exist", field="config") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", field="config") from error
    return {_PREFIX + key.upper().replace("-", "_"): _text(path, key, value) for key, value in content.items()}


def _text(path: Path, key: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return str(value)
    raise InvalidArgument(
        f"{path}: {key} is of type {type(value).__name__}, expected a string, number or boolean", field=key
    )


def _with_secrets(variables: dict[str, str], source: str) -> dict[str, str]:
    """Read the files that `NEARMQ_URL_FILE` and its like name."""
    for name in _SECRETS:
        path = variables.get(f"{name}_FILE")
        if path is None:
            continue
        if name in variables:
            raise InvalidArgument(f"{source} sets both {name} and {name}_FILE, expected one of them", field=name)
        try:
            variables[name] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{name}_FILE of {source}: {path} cannot be read: {error}", field=name) from error
    return variables
