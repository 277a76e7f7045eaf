from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# A NaN whose payload is the value; the text NaN, which JSON does not have; infinities.
import struct

import numpy as np

bits = 0x7FF8000000000000 | int(secret)
emit_signed({"x": np.frombuffer(struct.pack("<Q", bits))[0]})
