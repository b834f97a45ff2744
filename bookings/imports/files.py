"""Reads CSV files as spreadsheet programs write them, with different encodings and separators."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from bookit.errors import Invalid
from bookit.spreadsheets import BYTE_ORDER_MARK, without_apostrophes

# The number of lines is limited, because an import is one transaction, which keeps the calendars of
# its bookings locked.
MAX_LINES = 50_000
# A line of a booking has about 70 characters, so MAX_LINES lines have far fewer bytes.
MAX_BYTES = 32 * 1024 * 1024
SEPARATORS = ",;\t"
# Some programs begin a file with this line, which tells Excel the separator.
SEPARATOR_LINE = re.compile(r'sep=([^"\r\n])\r?\n', re.IGNORECASE)
# The byte order marks by which encodings are recognised.
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

#: The encodings that people can choose. Only UTF-8 and UTF-16 are recognised. A program cannot tell
#: the others apart, so BookIt does not guess.
ENCODINGS = {
    "": gettext_lazy("UTF-8 or UTF-16 (recognised)"),
    "cp1252": gettext_lazy("Windows-1252 (Western Europe)"),
    "cp1250": gettext_lazy("Windows-1250 (Central Europe)"),
    "cp1251": gettext_lazy("Windows-1251 (Cyrillic)"),
}


class Row(NamedTuple):
    """A line of a file: its number, as text editors show it, and its cells by column."""

    line: int
    cells: dict[str, str]


def decode(content: bytes, encoding: str = "") -> str:
    """Return the text of a file.

    Args:
        encoding: a key of `ENCODINGS`.

    Raises:
        Invalid: the file is too large, is not text in this encoding, or is in UTF-8 although
            another encoding was chosen.
    """
    if len(content) > MAX_BYTES:
        text = _("The file is larger than %(most)d MiB. Divide it.")
        raise Invalid.of("file", text % {"most": MAX_BYTES // 1024**2})
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise Invalid.of("file", _("This is a spreadsheet. Save it as CSV first."))
    if encoding and _is_utf8(content):
        text = _("The file is in UTF-8. Import it without choosing another encoding.")
        raise Invalid.of("file", text)
    encoding = encoding or MARKS.get(content[:2], "utf-8")
    try:
        return content.decode(encoding).removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError:
        text = _(
            "The file is not in this encoding. Save it as “CSV UTF-8”, or choose another encoding."
        )
        raise Invalid.of("file", text) from None


def _is_utf8(content: bytes) -> bool:
    """Return whether the file has characters beyond ASCII, all of them in UTF-8.

    Text in another encoding practically never looks like UTF-8. But UTF-8 can be decoded as almost
    any other encoding: `João` would be imported as `JoÃ£o`.
    """
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return not content.isascii()


@dataclass(frozen=True)
class Table:
    """A file whose first line names its columns. Each call of `rows` reads the text again.

    Args:
        columns: the fields of a form, by the names of the columns that a file can have.
    """

    text: str
    columns: Mapping[str, Any]

    def rows(self) -> Iterator[Row]:
        """Yield the lines below the first line, except empty lines.

        Raises:
            Invalid: the columns are wrong, or a line cannot be read.
        """
        text, delimiter, before = self.text, "", 0
        if found := SEPARATOR_LINE.match(text):
            text, delimiter, before = text[found.end() :], found[1], 1
        head = text.partition("\n")[0]
        delimiter = delimiter or max(SEPARATORS, key=head.count)
        # In strict mode, a quotation mark that is never closed is an error, and does not swallow
        # the rest of the file.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = before + 1
        try:
            names = [name.strip().lower().replace(" ", "_") for name in next(reader, [])]
            self._check_header(names)
            line = before + reader.line_num + 1
            for cells in reader:
                if len(cells) > len(names) and any(cells[len(names) :]):
                    raise _unreadable(line, _("it has more cells than the first line"))
                if any(cells):
                    yield Row(line, dict(zip(names, map(_plain, cells), strict=False)))
                # A cell in quotation marks can have several lines.
                line = before + reader.line_num + 1
        except csv.Error:
            # The reader notices a missing quotation mark only at the next mark or at the end of the
            # file. Therefore, the message names the line at which the row begins.
            reason = _("a quotation mark is missing or in the wrong place, or a cell is too long")
            raise _unreadable(line, reason) from None

    def count(self) -> int:
        """Return the number of rows.

        Raises:
            Invalid: the file cannot be read, or has no rows, or too many.
        """
        count = 0
        for count, _row in enumerate(self.rows(), start=1):
            if count > MAX_LINES:
                text = _("A file can have at most %(most)d lines. Divide it.")
                raise Invalid.of("file", text % {"most": MAX_LINES})
        if not count:
            raise Invalid.of("file", _("The file has no lines below its first line."))
        return count

    def _check_header(self, names: list[str]) -> None:
        """Check that the first line names all required columns, only known ones, and none twice."""
        known = ", ".join(self.columns)
        for name, column in self.columns.items():
            if column.required and name not in names:
                text = _("The column %(name)s is missing. The columns are %(known)s.")
                raise Invalid.of("file", text % {"name": name, "known": known})
        for name in names:
            if names.count(name) > 1:
                text = _("The column %(name)s occurs twice.")
                raise Invalid.of("file", text % {"name": name or "“”"})
            if name not in self.columns:
                text = _("The column %(name)s is unknown. The columns are %(known)s.")
                raise Invalid.of("file", text % {"name": name or "“”", "known": known})


def _plain(cell: str) -> str:
    """Return a cell without the apostrophes that `bookit.spreadsheets` writes before formulas."""
    return without_apostrophes(cell.replace("\r\n", "\n").strip())


def _unreadable(line: int, reason: str) -> Invalid:
    text = _("Line %(line)d cannot be read: %(reason)s.")
    return Invalid.of("file", text % {"line": line, "reason": reason})
