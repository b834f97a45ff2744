"""Starts tracing with OpenTelemetry's own instrumentations of WSGI, psycopg and httpx.

OpenTelemetry's instrumentation of Django is not used. It reads the host name of each request before
`HostMiddleware` runs, so it would fail for health checks, which may use any host name.

All imports of OpenTelemetry are inside functions, so a process without tracing does not load
OpenTelemetry.
"""

import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

# The span attributes that contain a URL or its query, in the old and the new version of
# OpenTelemetry's conventions.
URLS = ("http.url", "http.target", "url.full", "url.query")
# Monitoring programs request these paths every few seconds.
MONITORED = frozenset({"/health", "/health/ready", "/metrics"})
# A response that is a file is kept in the WSGI environment under this name.
FILE = "bookit.file"

Application = Callable[[dict[str, Any], Any], Any]


def is_on() -> bool:
    """Return whether the setting that turns on tracing has a value."""
    return bool(settings.OTEL_EXPORTER_OTLP_ENDPOINT)


def export(service: str) -> None:
    """Let this process send its spans. Call this function after the fork: it starts a thread.

    Spans are sent in batches. If the receiver is down, spans are dropped, and no request waits.

    Args:
        service: the name of the service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES
            sets another name.
    """
    if not is_on():
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class WithoutMessages(SpanProcessor):
        """Lets spans name errors without their messages; see `_without_messages`."""

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            _without_messages(span)

    named = {SERVICE_NAME: service, **OTELResourceDetector().detect().attributes}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(WithoutMessages())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def trace_web(application: Application) -> Application:
    """Return the WSGI application. If tracing is on, its requests and queries get spans.

    Requests for the paths in `MONITORED`, and their queries, get none.
    """
    if not is_on():
        return application
    from opentelemetry.instrumentation.utils import suppress_instrumentation
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

    _trace_database()

    def set_file_aside(environ: dict[str, Any], start_response: Any) -> Any:
        response = application(environ, start_response)
        if not isinstance(response, environ.get("wsgi.file_wrapper", ())):
            return response
        environ[FILE] = response
        return []

    traced = OpenTelemetryMiddleware(set_file_aside, request_hook=_without_query)

    def choose(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO") not in MONITORED:
            response = traced(environ, start_response)
            if FILE not in environ:
                return response
            # OpenTelemetry would return the file as a generator. The server would then not know
            # that it is a file, and a thread would wait while a slow client reads it.
            deque(response, maxlen=0)  # At the end of the generator, the span ends.
            return environ[FILE]
        # Without this, each SQL statement of these requests would be a trace of its own.
        with suppress_instrumentation():
            return application(environ, start_response)

    return choose


def trace_jobs() -> list[Any]:
    """Return the worker middleware that creates a span for each job; none if tracing is off.

    If tracing is on, queries and messages to webhooks get spans, too.
    """
    if not is_on():
        return []
    from opentelemetry import trace
    from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

    _trace_database()
    HTTPXClientInstrumentor().instrument(
        request_hook=_without_path, async_request_hook=_without_path_async
    )
    tracer = trace.get_tracer("bookit.jobs")

    async def trace_job(call_next: Callable[[], Awaitable[Any]], context: Any, worker: Any) -> Any:
        with tracer.start_as_current_span(
            f"job {context.job.task_name}",
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "bookit.job.id": context.job.id,
                "bookit.job.attempts": context.job.attempts,
            },
        ):
            return await call_next()

    return [trace_job]


def name_request(method: str, route: str, request_id: str) -> None:
    """Name the span of the current request after its route, and add the request id to the span."""
    from opentelemetry import trace

    span = trace.get_current_span()
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)
    span.set_attribute("bookit.request_id", request_id)


def _trace_database() -> None:
    import psycopg
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.instrumentation.utils import unwrap

    PsycopgInstrumentor().instrument()
    # Do not trace asynchronous connections. Only workers use them, and workers constantly poll for
    # jobs.
    unwrap(psycopg.AsyncConnection, "connect")


def _without_messages(span: Any) -> None:
    """Let a span record only the types of errors. The log has their messages and tracebacks.

    Messages quote values. PostgreSQL's, for example, quote an email address that is taken.
    """
    from opentelemetry.trace import Status

    # The span must not refer to itself. Otherwise, it would stay in memory until the next garbage
    # collection.
    itself: Any = weakref.ref(span)
    kind = type(span)

    def record_exception(exception: BaseException, *args: Any, **options: Any) -> None:
        itself().add_event("exception", {"exception.type": type(exception).__qualname__})

    def set_code(status: Any, description: str | None = None) -> None:
        kind.set_status(itself(), status.status_code if isinstance(status, Status) else status)

    span.record_exception, span.set_status = record_exception, set_code


def _without_query(span: Any, environ: dict[str, Any]) -> None:
    """Remove the queries of URLs from a request's span: they can contain the token of a feed."""
    for name in URLS:
        value = (span.attributes or {}).get(name) if span.is_recording() else None
        if value:
            # `urlsplit` would refuse request lines that the server accepts, for example `GET //[x`.
            short = "" if name == "url.query" else str(value).partition("?")[0]
            span.set_attribute(name, short)


def _without_path(span: Any, request: Any) -> None:
    """Keep only the schemes and hosts of URLs in a webhook message's span: paths can be secret."""
    for name in URLS:
        value = (span.attributes or {}).get(name) if span.is_recording() else None
        if value:
            parts = urlsplit(str(value))
            span.set_attribute(name, f"{parts.scheme}://{parts.hostname}")


async def _without_path_async(span: Any, request: Any) -> None:
    _without_path(span, request)
