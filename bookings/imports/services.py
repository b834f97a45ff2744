"""Imports a CSV file: all of its lines, or none."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _
from psycopg.rows import scalar_row

from accounts.models import User
from bookings.events import suppress_follow_up
from bookings.imports.files import Row, Table
from bookings.imports.lines import KINDS, Line
from bookit.adminsite.refusals import REFUSALS, messages_of
from bookit.database.rows import fetch
from bookit.errors import Forbidden, Invalid

# The number of lines that are checked and stored at a time.
CHUNK = 500
# Values that cannot be imported are shown up to this length.
MAX_VALUE = 100
# An import stops after a chunk if it has found at least this many problems by then. A file in which
# every line is wrong would take an hour, and has to be corrected anyway.
MAX_PROBLEMS = 1000

# Lets only one import run at a time. Two imports of the same file do not see each other's rows, so
# both would create its calendars and services. The number is arbitrary.
#
# Parameters: none.
# Columns: is_locked boolean.
_LOCK = "SELECT pg_try_advisory_xact_lock(7042027) AS is_locked"


class Problem(NamedTuple):
    """Why a line cannot be imported. `column` is empty if the reason is about the whole line.

    `value` is the line's cell in this column; it is empty if the message contains the cell.
    """

    line: int
    column: str
    message: str
    value: str = ""


class Progress(NamedTuple):
    """How many lines have been looked at, and how many there are."""

    done: int
    total: int


@dataclass
class Report:
    """The result of an import.

    Args:
        present: the number of lines whose account, calendar, service or booking exists already.
        is_cut: whether the import stopped, because there were too many problems.
        is_applied: whether the new lines were stored.
    """

    lines: int
    new: int = 0
    present: int = 0
    problems: list[Problem] = field(default_factory=list)
    is_cut: bool = False
    is_applied: bool = False


def import_file(
    *,
    kind: str,
    text: str,
    actor: User,
    at: datetime,
    is_applied: bool,
    progress: Callable[[Progress], object] = lambda progress: None,
) -> Report:
    """Import the lines of a CSV file, or only check them; see `import_in_steps`."""
    steps = import_in_steps(kind=kind, text=text, actor=actor, at=at, is_applied=is_applied)
    while True:
        try:
            progress(next(steps))
        except StopIteration as end:
            report: Report = end.value
            return report


def import_in_steps(
    *, kind: str, text: str, actor: User, at: datetime, is_applied: bool
) -> Generator[Progress, None, Report]:
    """Import the lines of a CSV file, or only check them.

    The lines are stored by the same functions that the API and the admin site call. All lines are
    stored in one transaction, which is committed only if every line is valid and `is_applied` is
    set. Nobody gets an email or a webhook message.

    Yield the progress at the beginning and after every `CHUNK` lines, and return the report. If the
    caller stops before the end, nothing is imported.

    Args:
        kind: a key of `bookings.imports.lines.KINDS`.

    Raises:
        Forbidden: the actor is not an admin.
        Invalid: the header is missing or wrong, a line cannot be read, or the file has no lines or
            too many lines; or another import is running.
    """
    if not actor.is_admin:
        raise Forbidden
    form = KINDS[kind]
    table = Table(text, form.base_fields)
    report = Report(lines=table.count())
    done = 0
    known: Any = None
    yield Progress(done, report.lines)
    with transaction.atomic():
        if is_applied and not fetch(_LOCK, {}, scalar_row)[0]:
            text = _(
                "Another import is running. Wait until it has ended, and check the file again."
            )
            raise Invalid.of("file", text)
        suppress_follow_up()
        in_order = _in_order(table, form)
        while rows := [*islice(in_order, CHUNK)]:
            known = _add_all(form, rows, known, report, actor=actor, at=at)
            done += len(rows)
            yield Progress(done, report.lines)
            report.is_cut = len(report.problems) >= MAX_PROBLEMS and done < report.lines
            if report.is_cut:
                break
        report.problems.sort()
        report.is_applied = is_applied and not report.problems
        if not report.is_applied:
            transaction.set_rollback(True)
    return report


def _in_order(table: Table, form: type[Line]) -> Iterator[Row]:
    """Yield the rows for which `form.comes_first` is true, and then the other rows."""
    for is_first in (True, False):
        yield from (row for row in table.rows() if form.comes_first(row.cells) is is_first)


def _add_all(
    form: type[Line], rows: Sequence[Row], before: Any, report: Report, *, actor: User, at: datetime
) -> Any:
    """Store the valid rows, update the report, and return the result of `Line.load`.

    Args:
        before: the result for the previous rows.
    """
    lines = [(row.line, form(row.cells)) for row in rows]
    valid = [(line, each) for line, each in lines if each.is_valid()]
    for line, each in lines:
        if each.errors:
            _refuse(report, line, each, dict(each.errors))
    known = form.load([each for _line, each in valid], before)
    for line, each in valid:
        try:
            with transaction.atomic():
                is_new = each.add(known, actor=actor, at=at)
        except ValidationError as error:
            has_fields = hasattr(error, "error_dict")
            _refuse(report, line, each, error.message_dict if has_fields else {"": error.messages})
        except REFUSALS as error:
            texts = {name or "": texts for name, texts in messages_of(error).items()}
            _refuse(report, line, each, texts)
        else:
            report.new += is_new
            report.present += not is_new
    return known


def _refuse(report: Report, line: int, form: Line, errors: Mapping[str, Any]) -> None:
    for name, texts in errors.items():
        column = form.renamed.get(name, name)
        # A reason about a field that is not a column is shown for the whole line.
        is_known = column in form.fields
        value = str(form.data.get(column) or "")[:MAX_VALUE] if is_known else ""
        for text in map(str, texts):
            shown = "" if value in text else value
            report.problems.append(Problem(line, column if is_known else "", text, shown))
