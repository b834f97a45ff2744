"""Sending requests from some connections at once and measuring the answers.

The load is a file of raw requests, separated by null bytes. `wrk` sends them or, where it is not
installed, two processes of our own, which take more from the machine that is measured.
"""

import json
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any

from bookit.runtime.startup import BASE_DIR

# Unless a case says otherwise.
CONNECTIONS = 16
# Nobody's rate so far; a load that must not repeat itself needs as many requests as could be sent.
MOST_REQUESTS_PER_SECOND = 8_000
PROCESSES = 2


class LoadError(Exception):
    """The load could not be sent."""


@dataclass(frozen=True)
class Measurement:
    """What one run showed."""

    seconds: float
    p50_ms: float
    p99_ms: float
    # Requests without an answer, and answers by status.
    failures: int
    statuses: dict[int, int]
    # CPU time that the load generator took.
    client_seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return sum(self.statuses.values()) / self.seconds

    def unexpected(self, expected: int) -> int:
        """Return how many answers had another status, or were none."""
        return sum(self.statuses.values()) - self.statuses.get(expected, 0) + self.failures


def raw_request(method: str, path: str, *, token: str = "", body: object = None) -> bytes:
    """Return an HTTP/1.1 request; `localhost` whatever the server, so that all get the same."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: */*"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def generator() -> str:
    """Return what sends the requests, for people."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return f"{PROCESSES} processes of our own (install wrk for a lighter one)"
    shown = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"wrk (?:debian/)?([\d.]+)", shown)
    return f"wrk {version[1]}" if version else "wrk"


def send(
    requests: Iterable[bytes],
    port: int,
    *,
    seconds: float,
    directory: Path,
    connections: int = CONNECTIONS,
) -> Measurement:
    """Send the requests to a server on this machine, over and over, for some seconds.

    wrk knows whole seconds only. `directory` is where a file may be left.

    Raises:
        LoadError: the generator failed.
    """
    file = directory / "requests"
    file.write_bytes(b"\0".join(requests))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wrk = shutil.which("wrk")
    if wrk:
        found = _with_wrk(wrk, file, port, seconds, connections)
    else:
        found = _with_our_own(file, port, seconds, connections)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    statuses = {int(status): count for status, count in found.pop("statuses").items()}
    if not statuses:
        raise LoadError(f"No request was answered; {found['failures']} failed.")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measurement(**found, statuses=statuses, client_seconds=spent)


def _with_wrk(wrk: str, file: Path, port: int, seconds: float, connections: int) -> dict[str, Any]:
    result = subprocess.run(
        [
            *(wrk, "--threads=1", f"--connections={connections}"),
            *(f"--duration={max(1, round(seconds))}s", "--timeout=10s"),
            *("--script", str(Path(__file__).with_name("drive.lua"))),
            *(f"http://127.0.0.1:{port}", "--", str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 or "RESULT " not in result.stdout:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["nothing"]
        raise LoadError(f"wrk failed; it said: {said[-1]}")
    found: dict[str, Any] = json.loads(result.stdout.partition("RESULT ")[2])
    return found


def _with_our_own(file: Path, port: int, seconds: float, connections: int) -> dict[str, Any]:
    processes = min(PROCESSES, connections)
    share = connections // processes
    clients = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "bookit.tools.benchmark.client", str(file), str(port)),
                *map(str, (seconds, share, number, processes)),
            ],
            cwd=BASE_DIR,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    try:
        outputs = [client.communicate()[0] for client in clients]
    finally:
        for client in clients:
            client.kill()
            client.wait()
    if any(client.returncode for client in clients):
        raise LoadError("A client process failed.")
    found = [json.loads(output) for output in outputs]
    latencies = [ms for one in found for ms in one["latencies"]]
    # Each twice, for a single one would be too few.
    percentiles = quantiles(latencies * 2 or [0, 0], n=100)
    statuses: Counter[str] = Counter()
    for one in found:
        statuses.update(one["statuses"])
    return {
        "seconds": max(one["seconds"] for one in found),
        "p50_ms": percentiles[49],
        "p99_ms": percentiles[98],
        "failures": sum(one["failures"] for one in found),
        "statuses": statuses,
    }
