"""Fixtures that the tests of several packages use."""

import io
import json
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.http import HttpResponse

from bookit.database.postgresql.base import DatabaseWrapper
from bookit.runtime import logs


@pytest.fixture(params=["pooled", "not pooled"])
def no_database(request: pytest.FixtureRequest, django_db_blocker: Any) -> Iterator[None]:
    """Make PostgreSQL unreachable: no program listens on the port that Django connects to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    usual = connections["default"]
    options = dict(usual.settings_dict["OPTIONS"])
    if request.param == "pooled":
        # In production, the timeout is two seconds, which is too long for a test.
        options["pool"] = {**options["pool"], "timeout": 0.2}
    else:
        del options["pool"]
    changed = {**usual.settings_dict, "HOST": "127.0.0.1", "PORT": port, "OPTIONS": options}
    connections["default"] = unreachable = DatabaseWrapper(changed, alias="unreachable")
    with django_db_blocker.unblock():
        yield
    unreachable.close()
    unreachable.close_pool()
    connections["default"] = usual


@pytest.fixture
def wsgi():
    """Return a function that calls the WSGI application with a request, as a server does."""
    from bookit.wsgi import application

    def send(method: str, target: str, body: bytes = b"", **environ: str) -> HttpResponse:
        path, _, query = target.partition("?")
        started: dict[str, Any] = {}

        def start_response(status: str, headers: Any, error: Any = None, /) -> Any:
            started.update(status=int(status.split()[0]), headers=headers)

        chunks = application(
            {
                "REQUEST_METHOD": method,
                "SCRIPT_NAME": "",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_LENGTH": str(len(body)),
                "CONTENT_TYPE": "application/json",
                "SERVER_NAME": "testserver",
                "SERVER_PORT": "80",
                "SERVER_PROTOCOL": "HTTP/1.1",
                "REMOTE_ADDR": "127.0.0.1",
                "wsgi.url_scheme": "http",
                "wsgi.version": (1, 0),
                "wsgi.input": io.BytesIO(body),
                "wsgi.errors": sys.stderr,
                "wsgi.multithread": True,
                "wsgi.multiprocess": True,
                "wsgi.run_once": False,
                **environ,
            },
            start_response,
        )
        try:
            content = b"".join(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        return HttpResponse(content, status=started["status"], headers=dict(started["headers"]))

    return send


@pytest.fixture
def log_lines(monkeypatch):
    """Return a function that returns the parsed log lines since its last call."""
    [console] = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler.formatter, logs.JSONFormatter)
    ]
    stream = io.StringIO()
    monkeypatch.setattr(console, "stream", stream)

    def take():
        text = stream.getvalue()
        stream.seek(0)
        stream.truncate()
        assert text == "" or text.endswith("\n")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    return take
