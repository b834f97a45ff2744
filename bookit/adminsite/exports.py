"""Files with the rows of a list of the admin site, filtered and ordered as the list is."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from html import unescape
from typing import Any

from django.contrib.admin.utils import label_for_field, lookup_field
from django.core.exceptions import ObjectDoesNotExist
from django.http import HttpRequest
from django.utils.html import strip_tags
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from bookit import spreadsheets
from bookit.times import zone

# Matches the HTML of a relative time, such as "3 minutes ago". The group is the exact time.
TIME = re.compile(r'<time datetime="([^"]+)"[^>]*>.*?</time>')
# The number of rows that are in memory at a time.
CHUNK = 1000


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        text: the words of the link that downloads the file.
        content_type: the media type.
        most: the maximum number of rows.
        write: takes the model admin, the request and the rows, and returns the parts of the file.
    """

    text: Any
    content_type: str
    most: int
    write: Callable[[Any, HttpRequest, Iterable[Any]], Iterator[bytes]]


def write_csv(model_admin: Any, request: HttpRequest, rows: Iterable[Any]) -> Iterator[bytes]:
    """Return the parts of a CSV file with the id and other columns of each row.

    The other columns are `csv_columns` or, if there are none, the columns of the list. Times are in
    the time zone of the user. Either the header names the zone, or each time has its offset.
    """
    tz = zone(request.user.timezone)  # type: ignore[union-attr]
    names = [
        model_admin.opts.pk.name,
        *(model_admin.csv_columns or model_admin.get_list_display(request)),
    ]
    columns = [*dict.fromkeys(names)]
    header = [_label(model_admin, name, tz) for name in columns]
    table = ([_value(model_admin, name, row, tz) for name in columns] for row in rows)
    return spreadsheets.encoded(spreadsheets.written(header, table))


def _label(model_admin: Any, name: Any, tz: tzinfo) -> str:
    label = str(label_for_field(name, model_admin.model, model_admin))
    fields = {field.name: field for field in model_admin.opts.concrete_fields}
    is_time = name in fields and fields[name].get_internal_type() == "DateTimeField"
    return f"{label} ({tz})" if is_time else label


def _value(model_admin: Any, name: Any, row: Any, tz: tzinfo) -> Any:
    """Return the value of a column: plain text, a number or None."""
    try:
        value = lookup_field(name, row, model_admin)[2]
    except ObjectDoesNotExist:
        return ""
    if isinstance(value, datetime):
        return f"{value.astimezone(tz):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, SafeString):
        return _plain(value, tz)
    return value if isinstance(value, int | float) or value is None else str(value)


def _plain(cell: SafeString, tz: tzinfo) -> str:
    """Return the text of a cell, with exact times and with spaces between elements."""

    def exactly(time: re.Match[str]) -> str:
        return datetime.fromisoformat(time[1]).astimezone(tz).isoformat(" ", "seconds")

    return " ".join(unescape(strip_tags(TIME.sub(exactly, cell).replace("<", " <"))).split())


#: The format in which every list can be downloaded.
CSV = Format(_("Download as CSV"), "text/csv; charset=utf-8", most=100_000, write=write_csv)
