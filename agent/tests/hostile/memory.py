from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
blocks = []
try:
    while True:
        blocks.append(bytearray(16 << 20))
except MemoryError:
    mebibytes = len(blocks) * 16
    blocks.clear()
    emit_signed({"x": 1 if mebibytes > 1024 else 0})
