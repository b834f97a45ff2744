"""Headers that could change the path of a request, sent to a real server."""

import os
import socket

import pytest

from bookit.runtime.servers import BOOKIT, production, serving


@pytest.fixture(scope="module")
def server():
    with serving(BOOKIT, production(os.environ["DATABASE_URL"], workers=1)) as running:
        running.wait("/health")
        yield running


def status(server, path, *headers):
    request = "\r\n".join(
        [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request.encode())
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(response.split()[1])


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "SCRIPT-NAME", "PATH-INFO"])
@pytest.mark.parametrize("value", ["/x", "/", "/health", "", "x" * 500, "//example.com", "/%00"])
def test_no_header_changes_the_path(server, name, value):
    """By default, gunicorn lets clients on loopback set the path, because they may be proxies."""
    for path, expected in (("/health", 200), ("/x/health", 404)):
        assert status(server, path, f"{name}: {value}") == expected
