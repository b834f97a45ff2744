"""Writes tables as CSV files in which no cell is a formula."""

import csv
import re
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import islice
from typing import Any

# Spreadsheet programs treat a cell that begins with one of these characters as a formula. A formula
# can send the other cells of the sheet to an attacker. With an apostrophe in front, the cell is
# plain text. In many countries, Excel expects semicolons between cells. A comma is then an ordinary
# character, and a quotation mark after it does not protect the text that follows. So a semicolon, a
# tab or a line break in a text can begin a new cell. That cell may also begin with quotation marks,
# which the program removes.
# https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r'^(?=[=+\-@\t\r\n])|(?<=[;\t\r\n])(?="*[=+\-@])')
PROTECTED = re.compile(r"""^'(?=[=+\-@\t\r\n])|(?<=[;\t\r\n])'(?="*[=+\-@])""")
# Excel reads a CSV file as UTF-8 only if it begins with this mark.
BYTE_ORDER_MARK = "\ufeff"
# The number of rows in a part of a file.
BATCH = 500


def cell(value: Any) -> Any:
    """Return a value as it is written into a cell. Only texts can be formulas; numbers cannot."""
    return FORMULA.sub("'", value) if isinstance(value, str) else value


def without_apostrophes(text: str) -> str:
    """Return a text without the apostrophes that `cell` writes before formulas."""
    return PROTECTED.sub("", text)


def written(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    """Yield a CSV file (RFC 4180) in parts, so that no large file is in memory as a whole."""
    rows = iter(rows)
    batch: list[Iterable[Any]] = [header, *islice(rows, BATCH)]
    while batch:
        part = StringIO(newline="")
        csv.writer(part).writerows([cell(value) for value in row] for row in batch)
        yield part.getvalue()
        batch = [*islice(rows, BATCH)]


def encoded(parts: Iterable[str]) -> Iterator[bytes]:
    """Yield a CSV file as bytes, with the mark that spreadsheet programs need."""
    yield BYTE_ORDER_MARK.encode()
    for part in parts:
        yield part.encode()
