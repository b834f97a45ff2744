"""Formats log lines, as JSON or text, with the id of the request and without secrets."""

import logging
import re
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from bookit.request_id import request_id

# No line names its thread, process or place in the code, so `logging` need not find them out (see
# "Optimization" in its documentation).
logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False
logging._srcfile = None

# A log must never contain email addresses (errors of the database quote values that it refuses),
# tokens or password hashes. Tokens are JWTs: three base64 parts, the first of which begins with
# `eyJ`, as every encoded object does whose first key begins with a letter. In a line, other
# characters may stand directly before it. Email addresses and tokens match only from the start of a
# word, because a search from each letter of a long word would take quadratic time.
LOCAL_CHARACTER = r"[^\s\x00-\x1f\"\\(),:;<>@\[\]]"
# An email address may also have a quoted part before the @, as in `"Ada L."@example.com`. The
# search stops after 320 characters, so it takes linear time.
SECRETS = re.compile(
    r'"(?:[^"\\\n]|\\.){0,320}+"@[\w.-]+'
    rf"|(?<!{LOCAL_CHARACTER}){LOCAL_CHARACTER}+(?:@|%40)(?:[\w.-]+|\[[^\]\s]*\])"
    r"|(?<![\w-])(?=[\w-]*eyJ)[\w-]++\.[\w-]++\.[\w-]*"
    r"|argon2\$[^\s\"')]+"
)

# How procrastinate writes a job: `task[7](argument='value')`.
CALL = re.compile(r"([\w.:-]+\[\w+\])\(.*\)", re.DOTALL)

# The escapes of characters that would begin another line or move the cursor of a terminal.
CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def redact(text: str) -> str:
    """Return `text` with email addresses, tokens and password hashes replaced."""
    if "@" in text or "%40" in text or "eyJ" in text or "argon2$" in text:
        return SECRETS.sub("[redacted]", text)
    # Most lines contain no secret. For these, the search would take longer than all other work.
    return text


def _redacted(value: Any) -> Any:
    """Return a value of a log line as JSON can contain it, with secrets replaced at any depth."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {redact(str(name)): _redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each) for each in value]
    return redact(str(value))


class RequestIdFilter(logging.Filter):
    """Gives every record the id of its request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `request_id`; keep every record."""
        record.request_id = request_id.get()
        return True


class JobFilter(logging.Filter):
    """Removes the arguments of jobs from records.

    The arguments may contain a whole email or hundreds of ids.

    Args:
        successes: whether to log the success of jobs that are not periodic.
    """

    def __init__(self, *, successes: bool = True) -> None:
        super().__init__()
        self.successes = successes

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep only the id, the task and the attempts of each job; return False to drop the record.

        Routine records are dropped, unless the level is DEBUG. All other records are kept.
        """
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
        """Return whether a job starts, or has a success that is not to be logged."""
        action = getattr(record, "action", None)
        # Only periodic tasks have this argument. It is the time at which the job was due.
        is_periodic = "timestamp" in (getattr(record, "job", None) or {}).get("task_kwargs", {})
        return action == "start_job" or (
            action == "job_success" and (is_periodic or not self.successes)
        )


class TracebackFilter(logging.Filter):
    """Drops records without an exception."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record has an exception."""
        return bool(record.exc_info)


def _job(job: dict[str, Any]) -> dict[str, Any]:
    return {name: job.get(name) for name in ("id", "task_name", "attempts")}


class JSONFormatter(OrjsonFormatter):
    """Formats a record as one JSON object on one line."""

    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            # Django adds `request` to some records, and runserver also adds `server_time`. The line
            # contains neither `request` nor `server_time`.
            reserved_attrs=[*logging.makeLogRecord({}).__dict__, "request", "server_time"],
        )
        self.default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        # If the message is a dict, the base class would let its items replace members of the line.
        if not isinstance(record.msg, str):
            record.msg = str(record.msg)
        return super().format(record)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line as JSON, even if orjson refuses a value (lone surrogate, huge number)."""
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
        """Return the members of the line, with secrets replaced.

        The finished line is not searched: in JSON, the `n` of an escaped line break would look like
        the beginning of an email address. Without that `n`, the JSON would be invalid.
        """
        return {name: _redacted(value) for name, value in log_data.items()}


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people at a terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(of_request)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return a single line, even if the path of a request contains a line break."""
        record.message = record.message.translate(CONTROLS)
        id_ = getattr(record, "request_id", None)
        record.of_request = f" [{id_}]" if id_ else ""
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line and its traceback, without secrets."""
        return redact(super().format(record))
