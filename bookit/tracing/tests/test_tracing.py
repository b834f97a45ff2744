"""Traces reach an OTLP receiver and contain no secrets. OpenTelemetry is loaded only if needed."""

import gzip
import json
import os
import subprocess
import sys
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import TemporaryFile
from threading import Thread
from wsgiref.util import FileWrapper, setup_testing_defaults

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from procrastinate.contrib.django import app

from accounts.models import User
from accounts.tests.factories import PASSWORD
from bookings.tests.factories import WebhookFactory
from bookings.tests.workers import Worker, database_url, until
from bookings.webhooks import services as webhooks
from bookit.runtime import environment
from bookit.runtime.servers import BOOKIT, production, serving
from bookit.runtime.startup import BASE_DIR
from bookit.tracing import start


class Receiver(ThreadingHTTPServer):
    """Keeps the spans that it receives, each with the name of its service."""

    def __init__(self):
        self.spans = []
        super().__init__(("127.0.0.1", 0), Handler)
        Thread(target=self.serve_forever, daemon=True).start()

    def named(self, name):
        """Return the spans with this name, in the order in which they were received."""
        return [span for _, span in self.spans if span.name == name]

    def children(self, parent):
        """Return the spans whose direct parent is this span."""
        return [span for _, span in self.spans if span.parent_span_id == parent.span_id]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = attributes(group.resource)["service.name"]
                for scope in group.scope_spans:
                    self.server.spans += [(service, span) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def attributes(thing):
    return {each.key: each.value.string_value for each in thing.attributes}


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()
    receiver.server_close()


def variables(receiver):
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        # Send spans after 200 milliseconds, not after five seconds.
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


def get(port, path, **headers):
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", path, headers={"Host": "localhost", **headers})
    response = client.getresponse()
    response.read()
    client.close()
    return response.status


def post(port, path, body, **headers):
    """Return the JSON of the response."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Host": "localhost", "Content-Type": "application/json", **headers}
    client.request("POST", path, json.dumps(body), sent)
    answer = json.loads(client.getresponse().read())
    client.close()
    return answer


@pytest.mark.django_db(transaction=True)
def test_requests_are_traced_without_secrets(receiver):
    environment = {**production(database_url(), workers=1), **variables(receiver)}
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with serving(BOOKIT, environment) as server:
        server.wait("/health")
        # Even with tracing, a health check may use any host name.
        assert get(server.port, "/health", Host="10.0.0.5") == 200
        assert get(server.port, "/health/ready") == 200
        assert get(server.port, "/metrics") == 200
        assert get(server.port, "/me/calendar.ics?token=secret-of-the-feed") == 404
        sent = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01", "X-Request-ID": "mine"}
        assert get(server.port, "/services?q=yoga", **sent) == 200
        assert get(server.port, "/nothing/at/all") == 404
        # The target of this request is not a valid URL.
        assert get(server.port, "//[x?secret-of-the-query") == 404
    # The server has stopped, so it has sent all spans.
    [request] = receiver.named("GET /services")
    found = attributes(request)
    assert found["http.route"] == "/services"
    assert found["bookit.request_id"] == "mine"
    assert request.trace_id.hex() == trace_id
    statements = [attributes(span)["db.statement"] for span in receiver.children(request)]
    assert any("catalog_service" in statement for statement in statements)
    assert {service for service, _ in receiver.spans} == {"bookit"}
    assert len(receiver.named("GET unknown")) == 2
    assert len(receiver.named("GET /me/calendar.ics")) == 1
    # Health checks and scrapes are not traced. If their statements were traced, each of them would
    # be the root of a trace.
    roots = {span.name.split()[0] for _, span in receiver.spans if not span.parent_span_id}
    assert roots == {"GET"}
    everything = "".join(str(span) for _, span in receiver.spans)
    for absent in ("secret-of-the-feed", "secret-of-the-query", "yoga", "/health", "/metrics"):
        assert absent not in everything


@pytest.mark.django_db(transaction=True)
def test_a_failed_statement_is_traced_without_its_values(receiver):
    environment = {**production(database_url(), workers=1), **variables(receiver)}
    with serving(BOOKIT, environment) as server:
        server.wait("/health")
        account = {"name": "Boss", "email": "boss@example.com", "password": PASSWORD}
        token = post(server.port, "/auth/register", account)["access_token"]
        User.objects.update(role="admin")
        role = {"name": "secret-of-the-role", "permissions": []}
        for code in (None, "validation_error"):
            created = post(server.port, "/roles", role, Authorization=f"Bearer {token}")
            assert created.get("code") == code
    everything = "".join(str(span) for _, span in receiver.spans)
    assert "UniqueViolation" in everything
    assert "secret-of-the-role" not in everything


@pytest.mark.django_db(transaction=True)
def test_jobs_and_their_webhook_messages_are_traced(receiver, tmp_path):
    hook = WebhookFactory(url=f"http://127.0.0.1:{receiver.server_port}/secret-of-the-hook")
    webhooks.send_test(webhook_id=hook.pk, at=timezone.now())
    worker = Worker(tmp_path / "output", WEBHOOK_ALLOW_PRIVATE="true", **variables(receiver))
    try:
        until(lambda: receiver.named("POST"))
        until(lambda: receiver.named("job bookings.deliver"))
    finally:
        worker.end()
    [message] = receiver.named("POST")
    [job] = [each for each in receiver.named("job bookings.deliver") if receiver.children(each)]
    assert message.trace_id == job.trace_id
    assert attributes(message)["http.url"] == "http://127.0.0.1"
    # The statements with which the worker polls for jobs are not traced.
    roots = {span.name for _, span in receiver.spans if not span.parent_span_id}
    assert {name.split()[0] for name in roots} == {"job"}
    assert {service for service, _ in receiver.spans} == {"bookit-worker"}
    assert "secret-of-the-hook" not in "".join(str(span) for _, span in receiver.spans)


@pytest.mark.django_db(transaction=True)
def test_spans_name_errors_without_their_messages(receiver, tmp_path):
    """PostgreSQL's messages quote refused values. A mail server's messages quote addresses."""
    app.configure_task("bookings.complete").defer(timestamp=0, secret_of_the_job=1)
    worker = Worker(tmp_path / "output", **variables(receiver))
    try:
        until(lambda: [each for each in receiver.named("job bookings.complete") if each.events])
    finally:
        worker.end()
    [job] = [each for each in receiver.named("job bookings.complete") if each.events]
    assert job.status.code == Status.STATUS_CODE_ERROR
    [error] = job.events
    assert (error.name, attributes(error)) == ("exception", {"exception.type": "TypeError"})
    assert "secret_of_the_job" in (tmp_path / "output").read_text()
    assert "secret_of_the_job" not in "".join(str(span) for _, span in receiver.spans)


def test_the_server_gets_a_file_as_a_file(settings, monkeypatch):
    """Otherwise, a thread would wait while a slow client reads the file."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(start, "_trace_database", lambda: None)
    settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://localhost:4318"
    with TemporaryFile() as file:
        responses = [FileWrapper(file), [b"not a file"]]
        remaining = iter(responses)

        def application(environ, start_response):
            start_response("200 OK", [])
            return next(remaining)

        for response in responses:
            environ = {"wsgi.file_wrapper": FileWrapper, "PATH_INFO": "/me/export"}
            setup_testing_defaults(environ)
            found = start.trace_web(application)(environ, lambda status, headers, *rest: None)
            assert (found if isinstance(found, FileWrapper) else [*found]) == response
        assert not file.closed
    assert len(spans.get_finished_spans()) == 2


def test_opentelemetry_is_not_loaded_if_tracing_is_off():
    code = (
        "import sys; from bookit.wsgi import application;"
        "from bookit.tracing import start; start.export('bookit'); assert start.trace_jobs() == [];"
        "from bookit.wsgi import Handler; assert type(application) is Handler;"
        "sys.exit(sorted(name for name in sys.modules if name.startswith('opentelemetry')) or 0)"
    )
    variables = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BASE_DIR, env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("value", ["localhost:4318", "grpc://localhost:4317", "http://"])
def test_an_endpoint_that_is_not_an_http_url_is_refused(monkeypatch, value):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)
    with pytest.raises(ImproperlyConfigured, match="OTEL_EXPORTER_OTLP_ENDPOINT must be a URL"):
        environment.http_url("OTEL_EXPORTER_OTLP_ENDPOINT")
