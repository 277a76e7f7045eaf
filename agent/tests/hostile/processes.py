from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import ctypes
import os
import resource
import signal
import subprocess

worked = 0
libc = ctypes.CDLL(None, use_errno=True)
parent = os.getppid()
for attempt in [
    lambda: os.fork() or os._exit(0),
    lambda: subprocess.Popen(["/bin/true"]),
    lambda: os.kill(parent, signal.SIGUSR1),
    lambda: os.setpriority(os.PRIO_PROCESS, parent, 1),
    lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE),
    lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
]:
    try:
        attempt()
        worked += 1
    except (OSError, ValueError):
        pass
for call in (
    lambda: libc.ptrace(16, parent, 0, 0),
    lambda: libc.unshare(0x10000000),
    lambda: libc.syscall(425, 1, 0),
    lambda: libc.syscall(321, 0, 0, 0),
):
    if call() >= 0:
        worked += 1
emit_signed({"x": worked})
