"""``from phala.dstack import unwrap, emit_signed``: the same functions as in :mod:`cohort`."""

from cohort import emit_signed, unwrap
from cohort import unwrap as unwrap_dataset

__all__ = ["emit_signed", "unwrap", "unwrap_dataset"]
