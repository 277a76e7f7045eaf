from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# Below the rounding step, and in the last bits of a double.
emit_signed({"x": 50 + secret * 1e-9})
