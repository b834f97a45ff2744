"""The `serve` command, run as users run it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from bookit.runtime.embedded_postgres import running
from bookit.runtime.startup import BASE_DIR
from bookit.tests.processes import alive, servers

MANAGE = [sys.executable, str(BASE_DIR / "manage.py")]


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of the tests with `variables`, but without the settings in `names`."""
    names = ("APP_ENV", "SECRET_KEY", "DATABASE_URL", "ALLOWED_HOSTS", "PORT")
    # The variables are empty instead of missing, because a .env file can set missing variables.
    unset = dict.fromkeys(names, "")
    return {**os.environ, **unset, "WEB_CONCURRENCY": "1", **variables}


def wait_until(condition: Callable[[], object], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


class Serve:
    """A running `manage.py serve`."""

    def __init__(self, directory: Path, output: Path, *arguments: str) -> None:
        self.directory = directory
        self.output = output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [*MANAGE, "serve", "--port", "0", *arguments],
                env=environment(EMBEDDED_POSTGRES_DIR=str(directory)),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        wait_until(
            lambda: self.process.poll() is not None or "Press Ctrl-C to stop it" in self.log()
        )
        assert self.process.poll() is None, self.log()
        # Tests read the URLs, which are printed between that line and the line with the data.
        wait_until(lambda: re.search(r"Data .*\n", self.log()))

    def log(self) -> str:
        return self.output.read_text()

    def get(self, path: str) -> int:
        with urlopen(self.url() + path, timeout=10) as response:
            return int(response.status)

    def url(self) -> str:
        found = re.search(r"API +(http://127\.0\.0\.1:\d+)\n", self.log())
        assert found
        return found[1]

    def send(self, request: bytes) -> tuple[str, dict[str, str], Any]:
        """Send bytes, and return the status line, headers and JSON of the response."""
        port = int(self.url().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            response = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, content = response.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        return status, dict(line.split(": ", 1) for line in lines), json.loads(content)

    def children(self, what: str = "") -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if what in " ".join(child.cmdline())]

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the web server and of the worker, but not of PostgreSQL."""
        mine = psutil.Process(self.process.pid).children(recursive=True)
        return [process for process in mine if process.name() != "postgres"]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the embedded PostgreSQL. Tests share it, so only the first test migrates."""
    return tmp_path_factory.mktemp("serve") / "with a blank"


@pytest.fixture
def serve(directory: Path, tmp_path: Path) -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def _serve(*arguments: str) -> Serve:
        started.append(Serve(directory, tmp_path / f"output-{len(started)}", *arguments))
        started[-1].wait_until_ready()
        return started[-1]

    yield _serve
    for each in started:
        each.end()
    for process in servers(directory):
        process.kill()


def test_serve_stops_everything_and_keeps_its_data(
    serve: Callable[..., Serve], directory: Path
) -> None:
    first = serve("--demo")
    assert first.get("/health") == 200
    assert f"Example {first.url()}/example\n" in first.log()
    assert first.get("/example") == 200
    assert "admin@example.com" in first.log().partition("Demo accounts")[2]
    assert len(first.children("gunicorn")) == len(first.children("procrastinate")) == 1
    processes = first.processes()
    with running(directory) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")

    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    assert "Stopping.\n" in first.log()
    assert alive(processes) == []
    assert servers(directory) == []
    assert "Traceback" not in first.log()

    second = serve()
    assert "migrations" not in second.log()
    with running(directory) as url, psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
    processes = second.processes()

    # Ctrl-C in a terminal sends SIGINT to the whole process group.
    os.killpg(second.process.pid, signal.SIGINT)
    assert second.process.wait(30) == 0
    assert alive(processes) == []
    assert servers(directory) == []
    assert "Traceback" not in second.log()


INVALID_HTTP = {
    "not HTTP": b"hello\r\n\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\n\r\n",
    "another version of HTTP": b"GET / HTTP/3.0\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n: x\r\n\r\n",
    "a long line": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "another transfer coding": b"POST /auth/login HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    "an invalid chunk size": (
        b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"
    ),
}


def test_invalid_http_gets_a_problem_document(serve: Callable[..., Serve]) -> None:
    server = serve()
    request_ids = set()
    for what, request in INVALID_HTTP.items():
        status, headers, content = server.send(request)
        assert status == "HTTP/1.1 400 Bad Request", what
        assert headers["Content-Type"] == "application/problem+json", what
        assert (content["status"], content["code"]) == (400, "validation_error"), what
        assert content["request_id"] == headers["X-Request-ID"], what
        request_ids.add(content["request_id"])
    assert len(request_ids) == len(INVALID_HTTP)
    # The log explains each error, with the request id of its response.
    assert all(each in server.log() for each in request_ids)
    assert server.get("/health") == 200


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ends the processes when `serve` is killed"
)
def test_web_server_and_worker_end_when_serve_or_the_web_server_is_killed(
    serve: Callable[..., Serve], directory: Path
) -> None:
    """If the worker is killed, `serve` starts another one."""
    killed = serve()
    processes = killed.processes()
    assert processes
    killed.process.kill()
    killed.process.wait()
    wait_until(lambda: not alive(processes))

    # Only PostgreSQL still runs; the next `serve` joins it.
    [leaked] = servers(directory)
    following = serve()
    assert servers(directory) == [leaked]

    [worker] = following.children("procrastinate")
    worker.kill()
    wait_until(lambda: "The worker ended (SIGKILL)" in following.log())
    wait_until(lambda: alive(following.children("procrastinate")))
    assert following.get("/health") == 200

    processes = following.processes()
    [web] = following.children("gunicorn")
    web.kill()
    assert following.process.wait(30) == 1
    assert "bookit: the web server ended (SIGKILL)\n" in following.log()
    wait_until(lambda: not alive(processes))
    assert servers(directory) == []


def refused(*arguments: str, command: Sequence[str] = ("serve",), **variables: str) -> str:
    """Return the one line with which a command refuses to start."""
    result = subprocess.run(
        [*MANAGE, *command, *arguments],
        env=environment(LOG_LEVEL="WARNING", **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    assert re.fullmatch(r"bookit: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


def test_a_busy_port_is_reported_in_one_line(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        line = refused("--port", str(port), EMBEDDED_POSTGRES_DIR=str(directory))
    assert f"port {port}: Address already in use" in line
    assert servers(directory) == []


@pytest.mark.parametrize("host", ["x" * 70, "256.256.256.256"])
def test_a_wrong_host_is_reported_in_one_line(directory: Path, host: str) -> None:
    line = refused("--host", host, EMBEDDED_POSTGRES_DIR=str(directory))
    assert f"cannot listen on {host}" in line
    assert "another address with --host" in line


@pytest.mark.parametrize(
    "command",
    [["serve", "--port", "0"], ["procrastinate", "worker"], ["retry_stalled_jobs"]],
    ids=" ".join,
)
def test_an_unreachable_postgresql_is_reported_in_one_line(command: list[str]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # No other program can listen on a bound port.
        port = silent.getsockname()[1]
        url = f"postgresql://a:secret@127.0.0.1:{port}/a"
        line = refused(command=command, DATABASE_URL=url)
    assert "PostgreSQL cannot be reached" in line
    assert str(port) in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"APP_ENV": "production"}, "SECRET_KEY"),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ({"WEB_THREADS": "many", "DATABASE_URL": "postgresql://a@b/c"}, "WEB_THREADS"),
        ({"PORT": "99999", "DATABASE_URL": "postgresql://a@b/c"}, "PORT"),
        ({"EMBEDDED_POSTGRES_DIR": "/dev/null/here"}, "/dev/null/here"),
    ],
)
def test_a_wrong_setting_is_reported_in_one_line(variables: dict[str, str], named: str) -> None:
    assert named in refused(**variables)


def test_help_starts_no_database(tmp_path: Path) -> None:
    for arguments in (["help"], ["serve", "--help"]):
        subprocess.run(
            [*MANAGE, *arguments],
            env=environment(EMBEDDED_POSTGRES_DIR=str(tmp_path / "unused")),
            stdout=subprocess.DEVNULL,
            check=True,
        )
    assert not (tmp_path / "unused").exists()
