"""Log lines: one JSON object each, with the id of the request they belong to, without secrets."""

import logging
import re
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from bookit.request_id import request_id

# No line says which thread, process or place in the code it comes from; so nobody has to find out
# (the logging documentation, "Optimization").
logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
logging._srcfile = None

# What must not reach a log, wherever it came from: mail addresses (a database error quotes the
# value it refuses), tokens (three base64 parts, the first of which encodes `{"`) and the hashes of
# passwords. All of them begin where something else ends: tried at every letter of a long word, the
# search would take the square of its length.
OTHER = r"[^\s\x00-\x1f\"\\(),:;<>@\[\]]"
BARE = (
    rf"(?<!{OTHER}){OTHER}+(?:@|%40)(?:[\w.-]+|\[[^\]\s]*\])"
    r"|(?<![\w-])(?=[\w-]*eyJ)[\w-]++\.[\w-]++\.[\w-]*"
    r"|argon2\$[^\s\"')]+"
)
SECRETS = re.compile(BARE)
# Also those with a part in quotes before the @, `"Ada L."@example.com`. Not in JSON, where a quote
# can be the end of something else.
SECRETS_OF_TEXT = re.compile(rf'"(?:[^"\\\n]|\\.)*"@[\w.-]+|{BARE}')

# A job as procrastinate writes it: `task[7](argument='value')`.
CALL = re.compile(r"([\w.:-]+\[\w+\])\(.*\)", re.DOTALL)

# Characters that would begin another line, or move the cursor of a terminal.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def redact(text: str, secrets: re.Pattern[str] = SECRETS_OF_TEXT) -> str:
    """Return `text` with mail addresses, tokens and hashes of passwords blotted out."""
    if "@" in text or "%40" in text or "eyJ" in text or "argon2$" in text:
        return secrets.sub("[redacted]", text)
    return text  # Most lines: the search costs more than all the rest of a line.


class RequestIdFilter(logging.Filter):
    """Gives every record the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request_id`; never drops a record."""
        record.request_id = request_id.get()
        return True


class JobFilter(logging.Filter):
    """Leaves out what the jobs of a worker are about: it may be a mail, or hundreds of ids.

    Args:
        successes: whether a job that went well gets a line, if it is not one of those by the clock.
    """

    def __init__(self, *, successes: bool = True) -> None:
        super().__init__()
        self.successes = successes

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record name the job alone; drop those that say what happens all the time."""
        if record.name.startswith("procrastinate"):
            if self._is_routine(record) and not logging.getLogger(record.name).isEnabledFor(
                logging.DEBUG
            ):
                return False
            record.msg = CALL.sub(r"\1", record.getMessage())
            record.args = None
            if hasattr(record, "job"):
                record.job = _job(record.job)
            if hasattr(record, "jobs"):
                record.jobs = [_job(job) for job in record.jobs]
        return True

    def _is_routine(self, record: logging.LogRecord) -> bool:
        action = getattr(record, "action", None)
        by_the_clock = "timestamp" in (getattr(record, "job", None) or {}).get("task_kwargs", {})
        return action == "start_job" or (
            action == "job_success" and (by_the_clock or not self.successes)
        )


class TracebackFilter(logging.Filter):
    """Drops records that come without an exception."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether there is something to find out."""
        return bool(record.exc_info)


def _job(job: dict[str, Any]) -> dict[str, Any]:
    return {name: job.get(name) for name in ("id", "task_name", "attempts")}


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
        return redact(super().format(record), SECRETS)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line, also of what JSON has no way to say: a lone surrogate, a huge number."""
        try:
            return super().jsonify_log_record(log_data)
        except TypeError:
            return super().jsonify_log_record(
                {
                    name: str(value).encode(errors="backslashreplace").decode()
                    for name, value in log_data.items()
                }
            )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Return the members of the line, with texts as they may be shown."""
        return {
            name: redact(value) if isinstance(value, str) else value
            for name, value in log_data.items()
        }


class TextFormatter(logging.Formatter):
    """A line for people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(of_request)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line, which stays one: a client's path may hold a line break."""
        record.message = record.message.translate(CONTROLS)
        name = getattr(record, "request_id", None)
        record.of_request = f" [{name}]" if name else ""
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback that belongs to it."""
        return redact(super().format(record))
