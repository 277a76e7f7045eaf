from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
import mmap
import os
import tempfile

worked = 0
for attempt in [
    lambda: open("/tmp/cohort-leak", "w"),
    lambda: open("/dev/shm/cohort-leak", "w"),
    lambda: open("/var/tmp/cohort-leak", "a"),
    lambda: open("/dev/null", "w"),
    lambda: tempfile.TemporaryFile(),
    lambda: os.mkdir("/tmp/cohort-leak"),
    lambda: os.memfd_create("leak"),
    lambda: os.mkfifo("/tmp/cohort-leak"),
    lambda: os.symlink("/x", "/tmp/cohort-leak"),
    lambda: os.utime("/tmp", (int(secret), int(secret))),
    lambda: os.chmod("/tmp", 0o777),
    lambda: os.truncate("/etc/hostname", 0),
    lambda: mmap.mmap(-1, 4096),
]:
    try:
        attempt()
        worked += 1
    except (OSError, RuntimeError):
        pass
emit_signed({"x": worked})
