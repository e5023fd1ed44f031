"""A document as YAML that people read: what is short in one line, nothing by reference."""

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import Node
from ruamel.yaml.representer import SafeRepresenter

_HEAD = "# Made by `make asyncapi` of the code and of docs/wire.md: change those.\n"
#: Characters of an object that stands in one line, less its quotes.
_SHORT = 94


class _Representer(SafeRepresenter):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # ruamel's signature
        return True

    def represent_sequence(self, tag: Any, sequence: Any, **_: Any) -> Node:
        return super().represent_sequence(tag, sequence, flow_style=not _holds_objects(sequence))

    def represent_mapping(self, tag: Any, mapping: Any, **_: Any) -> Node:
        is_short = len(str(mapping).replace("'", "")) < _SHORT
        return super().represent_mapping(tag, mapping, flow_style=is_short and _is_plain(mapping))

    def represent_str(self, data: str) -> Node:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Representer.add_representer(str, _Representer.represent_str)


def written(document: dict[str, Any]) -> str:
    """Return the YAML of a tree of plain values."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 120
    stream = io.StringIO()
    yaml.dump(document, stream)
    return _HEAD + stream.getvalue()


def _is_plain(value: Any) -> bool:
    """Say whether a value is a text of one line or another scalar, or holds nothing else, and no list of objects."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return not _holds_objects(value) if isinstance(value, list | tuple) else "\n" not in str(value)


def _holds_objects(sequence: Any) -> bool:
    """Say whether objects are in a list, or in the lists in it; there are none in vectors."""
    return any(
        isinstance(value, dict) or (isinstance(value, list | tuple) and _holds_objects(value)) for value in sequence
    )
