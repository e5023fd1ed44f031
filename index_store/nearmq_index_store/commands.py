"""`nearmq store create | import | export | compact | tune | list | show | verify | gc | sign | rename | drop`.

None of them needs a queue. Errors are the exceptions of `errors.py`; the command `nearmq` turns them into one line and
an exit code.
"""

import sys
from collections.abc import Iterator
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table
from ulid import ULID

from nearmq_index_store.catalog import check_schema
from nearmq_index_store.command_options import (
    DEFAULT_STORE,
    AsJson,
    Cache,
    CollectionName,
    DryRun,
    SigningKey,
    Store,
    hinting,
    open_catalog,
    print_answer,
)
from nearmq_index_store.compact_command import compact_collection
from nearmq_index_store.describing import describe, describe_schema
from nearmq_index_store.errors import AlreadyExists, InvalidArgument
from nearmq_index_store.export_command import export
from nearmq_index_store.gc_command import gc
from nearmq_index_store.import_command import import_file
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.progress import ProgressDisplay
from nearmq_index_store.schema import (
    SCALAR_TYPES,
    IndexSpec,
    Metric,
    PrimaryKey,
    ScalarField,
    ScalarType,
    Schema,
    VectorField,
)
from nearmq_index_store.sign_command import sign
from nearmq_index_store.tune_command import tune_collection
from nearmq_index_store.verifying import Problem, verify

app = typer.Typer(help="Make, fill, look at and drop the collections of a store.", no_args_is_help=True)

_DEFAULT_FIELD = "vector"
_DEFAULT_METRIC = "L2"
_DEFAULT_INDEX = "HNSW"


@app.command()
def create(
    collection: CollectionName,
    *,
    dim: Annotated[int | None, typer.Option(min=1, help=f"Dimensions of the one field, {_DEFAULT_FIELD!r}.")] = None,
    metric: Annotated[str, typer.Option(help="L2, IP or COSINE.")] = _DEFAULT_METRIC,
    index: Annotated[str, typer.Option(help="FLAT, HNSW, IVF_FLAT, IVF_SQ8 or IVF_PQ.")] = _DEFAULT_INDEX,
    index_param: Annotated[
        list[str] | None, typer.Option(help="A build parameter, such as M=16; may be repeated.", metavar="KEY=VALUE")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(
            help="A field in place of --dim, such as title:384:COSINE:HNSW:M=16,efConstruction=200; may be repeated.",
            metavar="NAME:DIM[:METRIC[:INDEX[:PARAMS]]]",
        ),
    ] = None,
    scalar: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A scalar field, such as year:int64:nullable; may be repeated. Types: {', '.join(SCALAR_TYPES)}.",
            metavar="NAME:TYPE[:nullable]",
        ),
    ] = None,
    primary_key: Annotated[str, typer.Option(help="int64 or string.")] = "int64",
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make an empty collection."""
    if (dim is None) == (not field):
        raise InvalidArgument("give either --dim or one or more --field", field="dim")
    if primary_key not in ("int64", "string"):
        raise InvalidArgument(f"--primary-key must be int64 or string, got {primary_key!r}", field="primary_key")
    fields = (
        tuple(_parse_field(text) for text in field)
        if field
        else (_field(_DEFAULT_FIELD, dim or 0, metric, index, index_param or []),)
    )
    schema = check_schema(
        Schema(
            primary_key=cast("PrimaryKey", primary_key),
            vector_fields=fields,
            scalar_fields=tuple(_parse_scalar(text) for text in scalar or ()),
        )
    )
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    version = None
    if not dry_run:
        version = catalog.create(collection, schema, job_id=str(ULID())).version
    elif collection in catalog.list():
        raise AlreadyExists(f"collection {collection!r} exists already", field="collection")
    answer = {"collection": collection, "dry_run": dry_run, "version": version, **describe_schema(schema)}
    verb = "would create" if dry_run else "created"
    print_answer(answer, f"{verb} {collection}: {', '.join(_field_texts(answer))}", as_json=as_json)


app.command("import")(import_file)
app.command("export")(export)
app.command("compact")(compact_collection)
app.command("tune")(tune_collection)
app.command()(gc)
app.command()(sign)


@app.command("list")
def list_(
    *, store: Store = DEFAULT_STORE, cache: Cache = None, signing_key_file: SigningKey = None, as_json: AsJson = False
) -> None:
    """List the collections."""
    names = open_catalog(store, cache, signing_key_file).list()
    print_answer({"collections": names}, "\n".join(names) if names else "no collections", as_json=as_json)


@app.command()
def show(
    collection: CollectionName,
    *,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a collection: its schema, its partitions, its rows and bytes."""
    catalog = open_catalog(store, cache, signing_key_file)
    with hinting(catalog, collection):
        facts = describe(catalog.snapshot(collection))
    if as_json:
        print_answer(facts, "", as_json=True)
        return
    table = Table("partition", "rows", "segments", "bytes")
    for part in [*facts["partitions"], {**facts, "name": "all"}]:
        table.add_row(part["name"], f"{part['rows']:,}", f"{part['segments']:,}", f"{part['bytes']:,}")
    console = Console()
    console.print(f"{facts['name']}, version {facts['version']}, primary key {facts['primary_key']}", highlight=False)
    for text in _field_texts(facts):
        console.print(text, highlight=False, markup=False)
    console.print(table)


@app.command("verify")
def verify_(
    collection: Annotated[
        list[str] | None, typer.Argument(metavar="[COLLECTION]...", help="The collections.", show_default="all")
    ] = None,
    *,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Read every byte of the newest versions against its digest, and check every segment; a problem exits 1."""
    problems: list[Problem] = []
    checked = {"segments": 0, "rows": 0, "bytes": 0}
    catalog = open_catalog(store, cache, signing_key_file)
    names = collection or catalog.list()
    with ProgressDisplay("rows") as display:
        for name in names:

            def count(entry: SegmentEntry, name: str = name) -> None:
                checked["segments"] += 1
                checked["rows"] += entry.rows
                checked["bytes"] += sum(blob.bytes for blob in entry.blobs())
                display.show(f"verifying {name}", checked["rows"], 0)

            with hinting(catalog, name):
                problems += verify(catalog, name, on_segment=count)
    answer: dict[str, Any] = {
        "collections": names,
        **checked,
        "problems": [
            {"collection": problem.collection, "segment": problem.segment, "message": problem.message}
            for problem in problems
        ],
    }
    lines = [_problem_text(problem) for problem in problems]
    read = f"{checked['segments']:,} segments, {checked['rows']:,} rows, {checked['bytes']:,} bytes"
    lines.append(f"{len(problems)} problems in {len(names)} collections: {read} read")
    print_answer(answer, "\n".join(lines), as_json=as_json)
    if problems:
        raise typer.Exit(1)


@app.command()
def rename(
    collection: CollectionName,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What it is called from now on.")],
    *,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Give a collection another name."""
    catalog = open_catalog(store, cache, signing_key_file, for_writing=True)
    with hinting(catalog, collection):
        version = catalog.rename(collection, new_name, job_id=str(ULID())).version
    answer = {"collection": new_name, "old_name": collection, "version": version}
    print_answer(answer, f"renamed {collection} to {new_name}", as_json=as_json)


@app.command()
def drop(
    collection: CollectionName,
    *,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask: refuse without --force.")] = False,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Drop a collection with all its rows."""
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    with hinting(catalog, collection):
        facts = describe(catalog.snapshot(collection))
        what = f"{collection}: {facts['rows']:,} rows in {facts['segments']:,} segments, {facts['bytes']:,} bytes"
        if not dry_run:
            _confirm(what, force=force, no_input=no_input)
            facts["version"] = catalog.drop(collection, job_id=str(ULID())).version
    answer = {
        "collection": collection,
        "dry_run": dry_run,
        **{name: facts[name] for name in ("version", "rows", "segments", "bytes")},
    }
    print_answer(answer, f"{'would drop' if dry_run else 'dropped'} {what}", as_json=as_json)


def _confirm(what: str, *, force: bool, no_input: bool) -> None:
    if force:
        return
    if no_input or not sys.stdin.isatty():
        raise InvalidArgument(f"dropping {what} needs --force where nobody can be asked", field="force")
    typer.confirm(f"drop {what}?", abort=True, err=True)


def _parse_field(text: str) -> VectorField:
    name, *rest = text.split(":", 4)
    if not rest or not rest[0].isdecimal():
        raise InvalidArgument(f"--field {text!r} is not NAME:DIM[:METRIC[:INDEX[:PARAMS]]]", field="field")
    dim, metric, index, params = [*rest, *["", _DEFAULT_METRIC, _DEFAULT_INDEX, ""][len(rest) :]]
    return _field(name, int(dim), metric, index, params.split(",") if params else [])


def _field(name: str, dim: int, metric: str, index: str, params: list[str]) -> VectorField:
    spec = IndexSpec(kind=index, params=dict(_parse_param(param) for param in params))
    return VectorField(name=name, dim=dim, metric=cast("Metric", metric), index=spec)


def _parse_param(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not value.isdecimal():
        raise InvalidArgument(f"index parameter {text!r} is not KEY=VALUE with a whole number", field="index_param")
    return name, int(value)


def _parse_scalar(text: str) -> ScalarField:
    name, _, rest = text.partition(":")
    kind, *flag = rest.split(":")
    if not kind or flag not in ([], ["nullable"]):
        raise InvalidArgument(f"--scalar {text!r} is not NAME:TYPE[:nullable]", field="scalar")
    return ScalarField(name=name, type=cast("ScalarType", kind), nullable=bool(flag))


def _field_texts(described: dict[str, Any]) -> Iterator[str]:
    """A line for each field of what `describe_schema` gave."""
    for field in described["vector_fields"]:
        params = ", ".join(f"{name}={value}" for name, value in field["index_params"].items())
        yield f"{field['name']} {field['dim']} {field['metric_type']} {field['index']}{f'({params})' if params else ''}"
    for field in described["scalar_fields"]:
        yield f"{field['name']} {field['type']}{' nullable' if field['nullable'] else ''}"


def _problem_text(problem: Problem) -> str:
    where = problem.collection if problem.segment is None else f"{problem.collection}, segment {problem.segment}"
    return f"{where}: {problem.message}"
