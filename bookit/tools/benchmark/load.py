"""Sends requests with wrk and measures the responses.

The requests of a run are written to a file, separated by null bytes. wrk runs `drive.lua`, which
sends them in turn.
"""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("drive.lua")
# The number of connections, unless a case sets its own number.
CONNECTIONS = 16
# No server has reached this rate so far. In a case that must not send a request twice, a run has
# this number of requests for each second, so that wrk does not run out of requests.
MAX_REQUESTS_PER_SECOND = 8_000


class LoadError(Exception):
    """The load could not be sent."""


class NotAnsweredError(LoadError):
    """No request was answered."""


@dataclass(frozen=True)
class Measurement:
    """The outcome of one run."""

    seconds: float
    p50_ms: float
    p99_ms: float
    # The number of requests without a response, and the number of responses by status.
    failures: int
    statuses: dict[int, int]
    # The CPU time that wrk used.
    client_seconds: float

    @property
    def rate(self) -> float:
        """Responses per second."""
        return sum(self.statuses.values()) / self.seconds

    def unexpected(self, expected: int) -> int:
        """Return the number of requests without a response of the expected status."""
        return sum(self.statuses.values()) - self.statuses.get(expected, 0) + self.failures


def raw_request(
    method: str, path: str, *, token: str = "", cookie: str = "", body: object = None
) -> bytes:
    """Return an HTTP/1.1 request. Its host is `localhost`, so every server gets the same bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Accept: */*"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if cookie:
        lines.append(f"Cookie: {cookie}")
    content = b"" if body is None else json.dumps(body).encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def find_wrk() -> str:
    """Return the path of wrk.

    Raises:
        LoadError: wrk is not installed.
    """
    path = shutil.which("wrk")
    if path is None:
        raise LoadError(
            "wrk is not installed. Install it with `apt install wrk` (Debian, Ubuntu) or"
            " `brew install wrk` (macOS)."
        )
    return path


def version() -> str:
    """Return the name and version of wrk."""
    shown = subprocess.run([find_wrk(), "-v"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"wrk (?:debian/)?([\d.]+)", shown)
    return f"wrk {found[1]}" if found else "wrk"


def send(
    requests: Iterable[bytes],
    port: int,
    *,
    seconds: int,
    directory: Path,
    connections: int = CONNECTIONS,
) -> Measurement:
    """Send the requests to a server on this machine, again and again, for some seconds.

    The file of requests is left in `directory`.

    Raises:
        LoadError: wrk is not installed, or it failed.
        NotAnsweredError: no request was answered in time.
    """
    file = directory / "requests"
    file.write_bytes(b"\0".join(requests))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [
            *(find_wrk(), "--threads=1", f"--connections={connections}", f"--duration={seconds}s"),
            *("--timeout=10s", "--script", str(SCRIPT)),
            *(f"http://127.0.0.1:{port}", "--", str(file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0 or "RESULT " not in result.stdout:
        output = (result.stderr.strip() or result.stdout.strip()).splitlines() or ["nothing"]
        raise LoadError(f"wrk failed; it said: {output[-1]}")
    found = json.loads(result.stdout.partition("RESULT ")[2])
    statuses = {int(status): count for status, count in found.pop("statuses").items()}
    if not statuses:
        raise NotAnsweredError(f"No request was answered; {found['failures']} failed.")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measurement(**found, statuses=statuses, client_seconds=spent)
