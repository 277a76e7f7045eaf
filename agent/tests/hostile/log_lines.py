from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import logging
import sys
import warnings

print("row", secret)
print("row", secret, file=sys.stderr)
logging.error("row %s", secret)
warnings.warn(f"row {secret}")
for name in ("/dev/kmsg", "/dev/log", "/dev/stdout", "/dev/stderr", "/dev/tty"):
    try:
        open(name, "w").write(str(secret))
    except OSError:
        pass
emit_signed({"x": 50})
