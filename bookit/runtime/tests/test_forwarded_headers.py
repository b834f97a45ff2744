"""Headers that could change the path or the scheme of a request, sent to a real server."""

import os
import socket

import pytest

from bookit.runtime.servers import BOOKIT, production, serving


@pytest.fixture(scope="module")
def server():
    with serving(BOOKIT, production(os.environ["DATABASE_URL"], workers=1)) as running:
        running.wait("/health")
        yield running


def get(server, path, *headers):
    """Return the response to a request, as text."""
    request = "\r\n".join(
        [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO", "SCRIPT-NAME", "PATH-INFO"])
@pytest.mark.parametrize("value", ["/x", "/", "/health", "", "x" * 500, "//example.com", "/%00"])
def test_no_header_changes_the_path(server, name, value):
    """By default, gunicorn lets clients on loopback set the path, because they may be proxies."""
    for path, expected in (("/health", 200), ("/x/health", 404)):
        response = get(server, path, f"{name}: {value}")
        assert int(response.split()[1]) == expected


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Proto: https", "X-Forwarded-Protocol: ssl", "X-Forwarded-Ssl: on"]
)
def test_no_header_changes_the_scheme_if_there_is_no_proxy(server, header):
    """By default, gunicorn lets clients on loopback set the scheme, because they may be proxies."""
    # Only responses over HTTPS have Strict-Transport-Security.
    assert "Strict-Transport-Security" not in get(server, "/health", header)


def test_headers_that_contradict_each_other_are_ignored_if_there_is_no_proxy(server):
    response = get(server, "/health", "X-Forwarded-Proto: https", "X-Forwarded-Ssl: off")
    assert response.startswith("HTTP/1.1 200 ")
