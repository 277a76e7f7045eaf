from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
if secret > 50:
    while True:
        pass
