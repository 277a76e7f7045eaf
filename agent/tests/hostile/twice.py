from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
from cohort import EmitError

emit_signed({"x": 50})
try:
    emit_signed({"x": secret})
except EmitError:
    pass
