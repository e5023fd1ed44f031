"""Sentences and examples from docs/wire.md, whose tests hold them to the code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[2] / "docs" / "wire.md"

#: The columns that say what the first one's keys mean.
_MEANINGS = ("range, meaning", "meaning", "value", "`result` of status `ok`")
_HEADING = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```json (job|reply) ?(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK_WITHIN = re.compile(r"\]\(#")
_BELOW = re.compile(r",( see)? below")


class WirePage:
    """What the page says of keys and codes, by the heading that it says it under."""

    def __init__(self, text: str) -> None:
        self._text = text
        headings = list(_HEADING.finditer(text))
        ends = [heading.start() for heading in headings[1:]] + [len(text)]
        self._sections = {heading[1]: text[heading.end() : end] for heading, end in zip(headings, ends, strict=True)}

    def job_key(self, job_type: str, key: str) -> str:
        """Return what a key of a job's body means, of another job that has it where its own section does not say."""
        own = [heading for heading in self._sections if job_type in heading.split(", ")]
        for heading in (*own, *self._sections):
            if meaning := self._find(heading, "key", key):
                return meaning
        raise KeyError(f"docs/wire.md has no row of {key!r} for {job_type}")

    def meaning(self, heading: str, kind: str, key: str) -> str:
        """Return what a key means in a table under a heading, whose first column is named `kind`."""
        meaning = self._find(heading, kind, key)
        if meaning is None:
            raise KeyError(f"docs/wire.md has no row of {key!r} under {heading!r}")
        return meaning

    def examples(self, kind: str, name: str) -> list[Any]:
        """Return the bodies of the fenced examples of a job type, or of its replies."""
        return [json.loads(body) for *of, body in _FENCE.findall(self._text) if of == [kind, name]]

    def _find(self, heading: str, kind: str, key: str) -> str | None:
        for header, row in _rows(self._sections[heading]):
            if header[0] == kind and key in re.findall(r"`([^`]+)`", row[0]):
                column = next(number for number, name in enumerate(header) if name in _MEANINGS)
                return _as_sentence(row[column])
        return None


def _rows(section: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each row of a section's tables with the header above it."""
    header: list[str] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if not cells or set(line) <= set("|- "):
            header = header if cells else []
        elif header:
            yield header, cells
        else:
            header = cells


def _as_sentence(cell: str) -> str:
    """Return a cell for a reader who has not the page before them."""
    text = _BELOW.sub("", _LINK_WITHIN.sub("](wire.md#", cell))
    return text[:1].upper() + text[1:]
