from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import os

os.write(3, b" " * 65536 * (1 + int(secret > 50)))
for _ in range(100):
    os.write(3, b"[" * 65536)
