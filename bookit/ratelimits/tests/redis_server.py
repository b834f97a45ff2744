"""A Redis server for tests, which a test can kill, freeze and start again."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis, RedisError

from bookit.tests.processes import free_port

PROGRAM = shutil.which("redis-server")
needs_redis = pytest.mark.skipif(
    PROGRAM is None, reason="redis-server is not installed (Debian: apt install redis-server)"
)


class Server:
    """A Redis server on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, socket_timeout=5)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it responds."""
        self.process = subprocess.Popen(
            [str(PROGRAM), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
            except RedisError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def is_running(self) -> bool:
        """Return whether the process exists, even if it is frozen."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill the server, so that it refuses connections."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """Suspend the process, so that the server accepts connections but does not respond."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """Run a Redis server until the end of a `with` block."""
    server = Server(directory)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.client.close()
