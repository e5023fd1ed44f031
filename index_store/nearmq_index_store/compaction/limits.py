"""What bounds compaction."""

from dataclasses import dataclass

from nearmq_index_store.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionLimits:
    """When segments are merged or rewritten, and when writes have to wait for it.

    Attributes:
        segment_bytes: vectors of the largest segment that is made, as for an import.
        min_inputs: small segments of a partition that are worth a merge. More make rarer merges and slower searches.
        ratio: the largest input that has an index, to all smaller ones together. Less writes a row fewer times, and
            leaves more segments.
        deleted_share: of a segment's rows, from which on it is rewritten.
        waiting_bytes: vectors without an index that may wait: 1 GiB, which one core scans in a fifth of a second
            and indexes in some minutes.
        waiting_segments: that may wait: 2,000, so that a version has two pages of them and a search opens no more.
    """

    segment_bytes: int = 256 << 20
    min_inputs: int = 8
    ratio: float = 0.5
    deleted_share: float = 0.2
    waiting_bytes: int = 1 << 30
    waiting_segments: int = 2_000

    def __post_init__(self) -> None:
        for name, least in (("segment_bytes", 1), ("min_inputs", 2), ("waiting_bytes", 1), ("waiting_segments", 1)):
            value = getattr(self, name)
            if value < least:
                raise InvalidArgument(f"{name} must be at least {least}, got {value}", field=name)
        for name in ("ratio", "deleted_share"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(f"{name} must be above 0, got {getattr(self, name)}", field=name)
