"""What a fuzz target is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Inputs that found something, or that no seed leads to; a folder for each target.
KEPT = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from strangers.

    Attributes:
        make_seeds: returns good inputs, to be mutated.
        prepare: returns the function to call with each input; whatever that raises is a finding.
    """

    name: str
    make_seeds: Callable[[], list[bytes]]
    prepare: Callable[[], Callable[[bytes], None]]

    def seeds(self) -> list[bytes]:
        """All seeds, the kept ones too."""
        return [*self.make_seeds(), *(path.read_bytes() for path in sorted((KEPT / self.name).glob("*")))]
