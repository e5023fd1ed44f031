"""What a filter knows about a column: the type of its values."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "int64", "float64", "string", "json"]


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of a column, and of every value inside an expression.

    Arrow arrays of these types are read: bool, int64, float64, string or large_string, and lists or large lists of
    them when `is_array`. A `json` value is a string that holds JSON text.
    """

    kind: Kind
    is_array: bool = False
    nullable: bool = False

    def __str__(self) -> str:
        return f"array of {self.kind}" if self.is_array else self.kind
