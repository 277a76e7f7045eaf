from cohort import emit_signed, unwrap

secret = unwrap("a", into="arrow")["v"][0].as_py()
# Each way that works counts one.
import socket

worked = 0
for family, kind, address in [
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 80)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::1", 80)),
    (socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/dstack.sock"),
    (socket.AF_UNIX, socket.SOCK_DGRAM, "\0abstract"),
]:
    try:
        socket.socket(family, kind)
        worked += 1
    except OSError:
        pass
try:
    socket.socketpair()
    worked += 1
except OSError:
    pass
emit_signed({"x": worked})
