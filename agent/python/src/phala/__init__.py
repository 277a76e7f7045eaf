"""The names that Phala's page uses; the same functions as in :mod:`cohort`."""

from cohort import emit_signed, unwrap

__all__ = ["emit_signed", "unwrap"]
