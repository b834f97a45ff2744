"""The CPU time that web workers and PostgreSQL use, and the memory that web workers use."""

import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
from django.db import connection

from bookit.runtime.servers import Server

SETTLE_TIMEOUT = 10.0

# Returns the process of PostgreSQL that serves this connection.
#
# Parameters: none.
# Columns: pid integer.
BACKEND = "SELECT pg_backend_pid() AS pid"


@dataclass(frozen=True)
class Memory:
    """The memory of a worker in MiB."""

    resident: float
    # Memory that several processes share is divided among them here. On systems other than Linux,
    # this is None.
    proportional: float | None


def cpu_seconds(server: Server) -> list[float]:
    """Return the CPU time that each worker has used so far."""
    times = [worker.cpu_times() for worker in server.workers()]
    return [each.user + each.system for each in times]


def postmaster() -> psutil.Process:
    """Return the main process of the PostgreSQL server to which Django is connected."""
    with connection.cursor() as cursor:
        cursor.execute(BACKEND)
        [(pid,)] = cursor.fetchall()
    parent = psutil.Process(pid).parent()
    assert parent is not None  # noqa: S101 - the server runs on this machine
    return parent


def database_cpu_seconds(postmaster: psutil.Process) -> float:
    """Return the CPU time that a PostgreSQL server has used so far.

    The `children_*` times of the postmaster are those of its processes that have ended.
    """
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for each in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def settle(server: Server) -> None:
    """Wait until the workers have finished the requests that were open when the load stopped.

    In the case `login`, each of the sixteen connections can leave a login open. Together, these
    logins take half a second of CPU time, which would otherwise be added to the next measurement.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT
    before = -1.0
    while (now := sum(cpu_seconds(server))) > before + 0.01 and time.monotonic() < deadline:
        before = now
        time.sleep(0.2)


def memory(server: Server) -> list[Memory]:
    """Return the memory of each worker."""
    return [_memory(worker) for worker in server.workers()]


def _memory(process: psutil.Process) -> Memory:
    try:
        proportional = process.memory_full_info().pss / 2**20
    except (AttributeError, psutil.AccessDenied):
        proportional = None
    return Memory(process.memory_info().rss / 2**20, proportional)
