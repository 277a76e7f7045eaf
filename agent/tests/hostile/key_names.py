from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# Past the SDK, which would refuse: more names, and the value as one of them.
from cohort import _run

_run.current().emitted = {"x": [50.0], f"row {secret}": [1.0], "x2": [float(secret)]}
