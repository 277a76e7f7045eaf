"""What a Python recipe uses inside the confidential VM."""

from cohort._emit import emit_signed
from cohort._tables import owners, unwrap
from cohort.errors import CohortError, EmitError, NotInRunError, UnknownDatasetError

__all__ = [
    "CohortError",
    "EmitError",
    "NotInRunError",
    "UnknownDatasetError",
    "emit_signed",
    "owners",
    "unwrap",
]
