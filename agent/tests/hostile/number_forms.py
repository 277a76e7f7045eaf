from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# The same number in another form: text, bool, a thousand digits, an exponent.
import os

form = ["5e1", "50.000"][secret > 50]
for fd in range(3, 16):
    try:
        os.write(fd, b'{"values": {"x": [' + form.encode() + b"]}}")
    except OSError:
        pass
os._exit(0)
