"""Compaction: small segments merged, deleted rows dropped, and indexes built, in steps of one output each."""

from nearmq_index_store.compaction.limits import CompactionLimits
from nearmq_index_store.compaction.policy import Debt, debt, leisure_at, plan_compaction, rows_due
from nearmq_index_store.compaction.steps import Compacted, CompactionProgress, Workplace, compact, compact_all
from nearmq_index_store.compaction.tiers import Reason, Step

__all__ = [
    "Compacted",
    "CompactionLimits",
    "CompactionProgress",
    "Debt",
    "Reason",
    "Step",
    "Workplace",
    "compact",
    "compact_all",
    "debt",
    "leisure_at",
    "plan_compaction",
    "rows_due",
]
