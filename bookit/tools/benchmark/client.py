"""A load generator for machines without wrk: one process, some connections, no threads.

python -m bookit.tools.benchmark.client FILE PORT SECONDS CONNECTIONS NUMBER OF

Sends every OF-th request of the file, from the NUMBER-th on, and writes what it saw as JSON; of a
file with fewer than OF requests all of them.
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

# How long the first answer is waited for, where it takes longer than the run.
PATIENCE = 10.0
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


def status_of(received: bytes) -> int | None:
    """Return the status of an answer, or None while a part of it is missing."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return None
    length = LENGTH.search(head)
    if len(body) < int(length[1]) if length else not body.endswith(b"0\r\n\r\n"):
        return None
    return int(head[9:12])


class Connection:
    """A connection with one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        """Send a request; small ones, and the server reads them: it never blocks for long."""
        self.received = b""
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Read what has come; return the status when the answer is complete.

        Raises:
            ConnectionError: the server hung up.
        """
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError
        self.received += part
        return status_of(self.received)


def drive(requests: Iterator[bytes], port: int, seconds: float, connections: int) -> dict[str, Any]:
    """Keep a request on its way on each connection; return counts and latencies in ms."""
    statuses: Counter[int] = Counter()
    latencies: list[float] = []
    failures = 0
    selector = selectors.DefaultSelector()

    def connect() -> None:
        connection = Connection(port)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(next(requests))

    started = time.perf_counter()
    for _ in range(connections):
        connect()
    while time.perf_counter() - started < (seconds if latencies else max(seconds, PATIENCE)):
        for entry, _ in selector.select(timeout=0.1):
            connection: Connection = entry.data
            try:
                status = connection.receive()
                if status is None:
                    continue
                statuses[status] += 1
                latencies.append((time.perf_counter() - connection.sent_at) * 1000)
                connection.send(next(requests))
            except ConnectionError:
                failures += 1
                selector.unregister(connection.socket)
                connection.socket.close()
                with suppress(ConnectionError):
                    connect()
    return {
        "seconds": time.perf_counter() - started,
        "statuses": statuses,
        "latencies": latencies,
        "failures": failures,
    }


def main() -> None:
    """Run as the arguments say."""
    file, port, seconds, connections, number, of = sys.argv[1:]
    requests = Path(file).read_bytes().split(b"\0")
    if len(requests) >= int(of):
        requests = requests[int(number) :: int(of)]
    found = drive(cycle(requests), int(port), float(seconds), int(connections))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
