"""Stops listening without losing a connection.

The system completes the handshakes of new connections by itself, and queues these connections until
a worker accepts them. When the last process closes the listening socket, the system resets the
connections in the queue. Even if the last worker has just emptied the queue, other connections can
arrive before the worker closes the socket. If a proxy has already sent a POST on a connection that
is reset, the proxy must not repeat this request on another server, so the request fails.

On Linux, a filter on the listening socket prevents this: it drops the packets with which clients
begin new connections, while earlier handshakes are completed. A client repeats a dropped packet
after a second. By then, the socket is usually closed, and the client is refused.
"""

import ctypes
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

# From <asm-generic/socket.h>; Python's module `socket` lacks these constants.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

# A socket filter of Linux (https://docs.kernel.org/networking/filter.html). Each instruction
# consists of a code, the jumps if true and if false, and an operand. The data begins with the TCP
# header, whose byte 13 contains the flags.
_DROP_SYN = [
    (0x30, 0, 0, 13),  # Load byte 13.
    (0x45, 0, 1, 0x02),  # If the flag SYN is not set, skip the next instruction.
    (0x06, 0, 0, 0),  # Drop the packet.
    (0x06, 0, 0, 0xFFFFFFFF),  # Keep the whole packet.
]


def drop_new_connections(listener: socket.socket) -> None:
    """Drop the packets that begin connections to this socket, in all processes that share it."""
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    instructions = b"".join(struct.pack("HBBI", *each) for each in _DROP_SYN)
    program = ctypes.create_string_buffer(instructions)
    option = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    with suppress(OSError):  # A sandbox may forbid filters.
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)


def accept_new_connections(listener: socket.socket) -> None:
    """Remove the filter of `drop_new_connections`, if the socket has one."""
    if sys.platform == "linux":
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def drop_new_connections_at_the_end(arbiter: Any) -> None:
    """Let gunicorn's main process drop new connections before it tells its workers to stop.

    gunicorn has no hook for this moment. Workers must not attach the filter: they also stop when
    they are replaced (SIGHUP), and then their successors listen on the same socket.
    """
    stop = arbiter.stop
    if not arbiter.master_pid:
        # A supervisor may have kept the socket of an earlier server, with its filter. If
        # `master_pid` is set, the socket comes from a predecessor (SIGUSR2), which attaches no
        # filter.
        for listener in arbiter.LISTENERS:
            accept_new_connections(listener.sock)

    def drop_and_stop(graceful: bool = True) -> None:
        # The socket may outlive this process: in its successor or predecessor (SIGUSR2), or in
        # systemd.
        if not (arbiter.reexec_pid or arbiter.master_pid or arbiter.systemd):
            for listener in arbiter.LISTENERS:
                drop_new_connections(listener.sock)
        stop(graceful)

    arbiter.stop = drop_and_stop
