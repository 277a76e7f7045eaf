from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import time

time.sleep(0 if secret > 50 else 1.5)
emit_signed({"x": 50})
