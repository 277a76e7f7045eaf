from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# What the agent's process and its container hold.
import os

worked = 0
parent = os.getppid()
for name in [
    f"/proc/{parent}/environ",
    f"/proc/{parent}/mem",
    f"/proc/{parent}/cmdline",
    "/proc/self/environ",
    "/etc/passwd",
    "/etc/hostname",
    "/root/.bashrc",
    "/var/run/dstack.sock",
]:
    try:
        open(name, "rb").read(1)
        worked += 1
    except OSError:
        pass
for folder in ("/proc", "/tmp", "/root", "/var", "/home", "/etc"):
    try:
        os.listdir(folder)
        worked += 1
    except OSError:
        pass
emit_signed({"x": worked})
