"""Log lines: one JSON object each, with the id of the request they belong to, without secrets."""

import logging
import re
from contextvars import ContextVar

from pythonjsonlogger.orjson import OrjsonFormatter

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# What must not reach a log, wherever it came from: mail addresses (a database error quotes the
# value it refuses) and tokens (three base64 parts, the first of which encodes `{"`).
SECRETS = re.compile(
    r"[A-Za-z0-9.!#$&'*+/=?^_`{|}~-]+(?:@|%40)[A-Za-z0-9.-]+"
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
)


def redact(text: str) -> str:
    """Return `text` with mail addresses and tokens blotted out."""
    if "@" in text or "%40" in text or "eyJ" in text:
        return SECRETS.sub("[redacted]", text)
    return text  # Most lines: the search costs more than all the rest of a line.


class RequestIdFilter(logging.Filter):
    """Gives every record the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request_id`; never drops a record."""
        record.request_id = request_id.get()
        return True


class JSONFormatter(OrjsonFormatter):
    """One JSON object a line."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            # Django hands over the request and the response; neither belongs in a line.
            reserved_attrs=[
                *logging.makeLogRecord({}).__dict__,
                "request",
                "response",
                "server_time",
            ],
        )
        self.default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        # A dict as message would set any field of the line.
        if not isinstance(record.msg, str):
            record.msg = str(record.msg)
        return redact(super().format(record))


class TextFormatter(logging.Formatter):
    """A line for people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s [%(request_id)s]")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return redact(super().format(record))
