from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
emit_signed({"x": secret}, epsilon=5)
