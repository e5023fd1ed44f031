"""`nearmq store sign`: the first signatures of a store, and those of a new key."""

from typing import Annotated

import msgspec
import typer

from nearmq_index_store.blobs import open_store
from nearmq_index_store.blobs.signed import read_signing_keys
from nearmq_index_store.command_options import DEFAULT_STORE, AsJson, DryRun, SigningKey, Store, print_answer
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.progress import ProgressDisplay
from nearmq_index_store.signing import sign_all


def sign(
    *,
    signing_key_file: SigningKey = None,
    store: Store = DEFAULT_STORE,
    trust: Annotated[
        bool, typer.Option("--trust-unsigned", help="Sign what has no signature: you know that nobody has changed it.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Sign a store by the first of the keys, what another of them has signed too; rows and indexes stay as they are."""
    if signing_key_file is None:
        raise InvalidArgument("sign needs keys, --signing-key-file", field="signing_key_file")
    keys, blobs = read_signing_keys(signing_key_file), open_store(store)
    with ProgressDisplay("objects") as display:
        found = sign_all(
            blobs,
            keys,
            trust_unsigned=trust,
            dry_run=dry_run,
            on_object=lambda done: display.show("signing", done, 0),
        )
    counts = msgspec.to_builtins(found)
    answer = {"dry_run": dry_run, **counts}
    verb = "would sign" if dry_run else "signed"
    text = (
        f"{verb} {found.unsigned:,} without a signature and {found.other:,} of other keys; {found.first:,} were signed"
    )
    print_answer(answer, text, as_json=as_json)
