"""Imports a CSV file: all of its lines, or none."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User
from bookings.events import suppress_follow_up
from bookings.imports.lines import KINDS, Line
from bookit.adminsite.refusals import REFUSALS, messages_of
from bookit.errors import Forbidden, Invalid

# An import is one transaction, which keeps the calendars of its bookings locked.
MAX_LINES = 10_000


@dataclass(frozen=True)
class Problem:
    """Why a line cannot be imported. `column` is empty if the reason is about the whole line."""

    line: int
    column: str
    message: str


@dataclass
class Report:
    """The result of an import.

    Args:
        present: the number of lines that were imported before.
        is_applied: whether the new lines were stored.
    """

    lines: int
    new: int = 0
    present: int = 0
    problems: list[Problem] = field(default_factory=list)
    is_applied: bool = False


def import_file(
    *,
    kind: str,
    text: str,
    actor: User,
    at: datetime,
    is_applied: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Import the lines of a CSV file, or find out what would happen.

    Each line goes through the service that a person would use, in one transaction. It is committed
    only if every line is valid and `is_applied` is set. Nobody gets an email or a webhook message.

    Args:
        kind: a key of `bookings.imports.lines.KINDS`.
        progress: called after each line with the number of lines so far and of all lines.

    Raises:
        Forbidden: the actor is not an admin.
        Invalid: the file has no header, a wrong header, no lines or too many lines.
    """
    if not actor.is_admin:
        raise Forbidden
    form, rows = KINDS[kind], _rows(text, KINDS[kind])
    report = Report(lines=len(rows))
    with transaction.atomic():
        suppress_follow_up()
        for done, (line, cells) in enumerate(rows, start=1):
            _add(form(cells), line, report, actor=actor, at=at)
            progress(done, len(rows))
        report.is_applied = is_applied and not report.problems
        if not report.is_applied:
            transaction.set_rollback(True)
    return report


def _add(form: Line, line: int, report: Report, *, actor: User, at: datetime) -> None:
    if not form.is_valid():
        _refuse(report, line, dict(form.errors))
        return
    try:
        with transaction.atomic():
            is_new = form.add(actor=actor, at=at)
    except ValidationError as error:
        has_fields = hasattr(error, "error_dict")
        _refuse(report, line, error.message_dict if has_fields else {"": error.messages})
        return
    except REFUSALS as error:
        _refuse(report, line, {name or "": texts for name, texts in messages_of(error).items()})
        return
    report.new += is_new
    report.present += not is_new


def _refuse(report: Report, line: int, errors: dict[str, list[str]]) -> None:
    report.problems += [
        Problem(line, "" if column == NON_FIELD_ERRORS else column, message)
        for column, messages in errors.items()
        for message in messages
    ]


def _rows(text: str, form: type[Line]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a file that are not empty, each with its number in the file."""
    # Spreadsheets in many countries separate cells by semicolons.
    head = text.partition("\n")[0]
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), delimiter=delimiter)
    try:
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
        _check_header(reader.fieldnames, form)
        rows = []
        for cells in reader:
            line = reader.line_num
            if None in cells:
                text = _("Line %(line)d has more cells than the first line.")
                raise Invalid.of("file", text % {"line": line})
            if any(cells.values()):
                rows.append((line, {name: cell or "" for name, cell in cells.items()}))
            if len(rows) > MAX_LINES:
                text = _("A file can have at most %(most)d lines. Divide it.")
                raise Invalid.of("file", text % {"most": MAX_LINES})
    except csv.Error as error:
        raise Invalid.of("file", str(error)) from None
    if not rows:
        raise Invalid.of("file", _("The file has no lines."))
    return rows


def _check_header(names: Sequence[str], form: type[Line]) -> None:
    """Check that the first line names all required columns, only known ones, and each once."""
    columns: dict[str, Any] = form.base_fields
    known = ", ".join(columns)
    for name, column in columns.items():
        if column.required and name not in names:
            text = _("The column %(name)s is missing. The columns are %(known)s.")
            raise Invalid.of("file", text % {"name": name, "known": known})
    for name in names:
        if name not in columns or names.count(name) > 1:
            text = _("The column %(name)s is unknown or occurs twice. The columns are %(known)s.")
            raise Invalid.of("file", text % {"name": name or "“”", "known": known})
