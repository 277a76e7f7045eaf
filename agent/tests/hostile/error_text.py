from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
raise ValueError(f"the first row has {secret}")
