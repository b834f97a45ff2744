"""Finds running processes, and free ports for new processes."""

import random
import socket
from contextlib import suppress
from pathlib import Path

import psutil

# These ports are below the ports of outgoing connections, which start at 32768 on Linux and higher
# on other systems.
PORTS = range(10_000, 32_000)


def free_port() -> int:
    """Return a free port.

    Use this function for programs that need a port number before they start. If the system chose
    the port, the system could also give it to an outgoing connection before the program listens.
    """
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("", random.choice(PORTS)))
            return int(probe.getsockname()[1])


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes in `processes` that are still running."""
    return [
        process
        for process in processes
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]


def servers(directory: Path) -> list[psutil.Process]:
    """Return the PostgreSQL servers with data in `directory`, without their child processes."""
    found = []
    for process in psutil.process_iter(["name", "status"]):
        if process.info["name"] == "postgres" and process.info["status"] != psutil.STATUS_ZOMBIE:
            with suppress(psutil.Error):
                if process.cwd().startswith(f"{directory}/data"):
                    parent = process.parent()
                    if parent is None or parent.name() != "postgres":
                        found.append(process)
    return found
