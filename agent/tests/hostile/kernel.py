from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# Descriptors that somebody left open, variables, and what the kernel keeps for others to read.
import ctypes
import os
import stat

worked = 0
pipes = 0
for descriptor in range(3, 256):
    try:
        pipes += stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        worked += 1
    except OSError:
        pass
# The one that its numbers go into.
worked -= min(pipes, 1)
worked += len(set(os.environ) - {
    "ARROW_DEFAULT_MEMORY_POOL", "LC_ALL", "MALLOC_ARENA_MAX", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "TZ",
})
libc = ctypes.CDLL(None, use_errno=True)
parent = os.getppid()
text = ctypes.create_string_buffer(b"leak")
for call in [
    (29, 0, 4096, 0o1600),  # shmget
    (64, 0, 1, 0o1600),  # semget
    (68, 0, 0o1600),  # msgget
    (22, ctypes.byref((ctypes.c_int * 2)())),  # pipe
    (248, b"user", text, text, 4, -5),  # add_key
    (250, 0, -3, 1),  # keyctl
    (253,),  # inotify_init
    (283, 0, 0),  # timerfd_create
    (284, 0),  # eventfd
    (240, b"/leak", 66, 0o600, None),  # mq_open
    (298, text, 0, -1, -1, 0),  # perf_event_open
    (310, parent, None, 0, None, 0, 0),  # process_vm_readv
    (312, parent, parent, 0, 0, 0),  # kcmp
    (323, 0),  # userfaultfd
    (424, parent, 0, None, 0),  # pidfd_send_signal
    (425, 1, text),  # io_uring_setup
    (434, parent, 0),  # pidfd_open
    (438, 0, 0, 0),  # pidfd_getfd
    (203, parent, 8, text),  # sched_setaffinity
    (62, -1, 0),  # kill
    (200, parent, 0),  # tkill
    (234, parent, parent, 0),  # tgkill
    (129, parent, 0, text),  # rt_sigqueueinfo
]:
    if libc.syscall(*call) >= 0:
        worked += 1
emit_signed({"x": worked})
