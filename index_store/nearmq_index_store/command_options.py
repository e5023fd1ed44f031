"""What the commands of `nearmq store` share: options, the opened catalog, and how answers are printed."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from nearmq_index_store.errors import CollectionNotFound

if TYPE_CHECKING:
    from nearmq_index_store.catalog import Catalog

DEFAULT_STORE = "file:./nearmq-data"

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _completed(context: typer.Context, url: str | None) -> str | None:
    """Let the root command add to a url what it knows for all servers, such as the authorities to trust."""
    complete = getattr(context.obj, "completed", None)
    return str(complete(url)) if url and complete is not None else url


Store = Annotated[
    str,
    typer.Option(
        "--store", envvar="NEARMQ_STORE", callback=_completed, help="The store: file:…, s3://… or redis[s]://…."
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        "--cache",
        envvar="NEARMQ_CACHE",
        callback=_completed,
        help="A Redis before the store; worth it before a bucket.",
    ),
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        "--signing-key-file",
        envvar="NEARMQ_SIGNING_KEY_FILE",
        help="Keys, one a line: sign what names blobs, and refuse what is not signed.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", envvar="NEARMQ_THREADS", min=1, help="Of the index builds.", show_default="cores"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Check and say what would be done; change nothing.")]
CollectionName = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection.")]


def open_catalog(
    store: str, cache: str | None, signing_key_file: Path | None, *, for_writing: bool = False
) -> "Catalog":
    """Open the catalog of a store; who is about to write is told what a crash may lose."""
    from nearmq_index_store.blobs import open_store  # noqa: PLC0415  not before a store is asked for
    from nearmq_index_store.catalog import Catalog  # noqa: PLC0415

    blobs = open_store(store, cache, signing_key_file)
    if for_writing and blobs.durability is not None:
        sys.stderr.write(f"note: {blobs.durability}\n")
    return Catalog(blobs)


@contextmanager
def hinting(catalog: "Catalog", collection: str) -> Iterator[None]:
    """Answer a collection that is not found with the nearest that is there."""
    try:
        yield
    except CollectionNotFound as error:
        nearest = difflib.get_close_matches(collection, catalog.list(), n=1)
        hint = f"did you mean {nearest[0]!r}" if nearest else "`nearmq store list` shows what there is"
        raise CollectionNotFound(f"{error.message}, {hint}", field=error.field) from None


def print_answer(answer: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print an answer on stdout, for programs or for people."""
    sys.stdout.write(f"{msgspec.json.encode(answer).decode() if as_json else text}\n")


def read_size(text: str) -> int:
    """Read a number of bytes such as 512MiB, 2G or 1000000."""
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size, expected a whole number with KiB, MiB, GiB or TiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def read_duration(text: str) -> float:
    """Read a time in seconds, such as 90s, 15m, 1.5h or 7d; a bare number is one of seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time, expected a number with s, m, h or d, such as 15m")
    return float(match[1]) * _SECONDS[match[2] or "s"]
