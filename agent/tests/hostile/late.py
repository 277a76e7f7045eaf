from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# After the numbers are out: handlers, threads.
import atexit
import os
import threading

atexit.register(lambda: os.write(1, str(secret).encode()))
threading.Thread(target=lambda: [os.write(3, b"x") for _ in range(int(secret))], daemon=True)
emit_signed({"x": 50})
