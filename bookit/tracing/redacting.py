"""Removes values from the errors in spans. Import this module only if tracing is on."""

import re
from collections.abc import Sequence

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

# OpenTelemetry's attributes with the text and the traceback of an exception.
MESSAGE, TRACEBACK = "exception.message", "exception.stacktrace"
# The reply of a mail server can contain an email address. The search for addresses takes quadratic
# time in long words, so at most this many characters of an error are kept.
MAX_LENGTH = 500
ADDRESS = re.compile(r"\S*@\S*")


class RedactingExporter(SpanExporter):
    """Sends spans with `exporter`, without the values that a statement or a mail server refused.

    The first line of an error says what is wrong. The other lines of a database error, and its
    traceback, can contain a whole row. The log has the traceback.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans."""
        return self._exporter.export([*map(_redacted, spans)])

    def shutdown(self) -> None:
        """Send no more spans."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is waiting, and return whether it was sent in time."""
        return self._exporter.force_flush(timeout_millis)


def _redacted(span: ReadableSpan) -> ReadableSpan:
    described = span.status.description
    if not span.events and not described:
        return span
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=[_without_values(event) for event in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, _first_line(described) if described else None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_values(event: Event) -> Event:
    kept = {
        name: _first_line(str(value)) if name == MESSAGE else value
        for name, value in (event.attributes or {}).items()
        if name != TRACEBACK
    }
    return Event(event.name, kept, event.timestamp)


def _first_line(text: str) -> str:
    first = next(iter(text.strip().splitlines()), "")
    return ADDRESS.sub("[redacted]", first[:MAX_LENGTH])
