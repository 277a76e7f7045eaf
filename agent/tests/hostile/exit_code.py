from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import os

os._exit(int(secret))
