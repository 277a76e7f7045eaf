from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import threading
import time

if secret <= 50:
    while True:
        pass
# Whoever starts so many is ended before the number is out.
threading.stack_size(32 << 10)
for _ in range(2000):
    threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
time.sleep(1)
emit_signed({"x": 90})
