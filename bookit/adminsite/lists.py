"""A template filter for the lists of the admin site (`{% load lists %}`)."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

register = template.Library()

CELL = re.compile(r"<(?:td|th)(?=[ >])")
# A cell without a value, as Django writes it.
BLANK = re.compile(r"<[^>]*>(?:&nbsp;|-)?</(?:td|th)>")


@register.filter
def named_by(cells: Iterable[SafeString], headers: list[dict[str, Any]]) -> Iterator[SafeString]:
    """Yield the cells of a row, each with the name of its column in `data-label`.

    On a narrow screen, a row is a card, and the style sheet shows the name in front of each value.
    """
    names = iter(headers)
    for cell in cells:
        header = next(names, None)
        # The header of the checkboxes is a checkbox too, and not a name.
        name = "" if header is None or "<" in str(header["text"]) else capfirst(header["text"])
        opening = CELL.match(cell)
        if not name or not opening:
            yield cell
            continue
        # On a narrow screen, a value that is empty needs no line.
        blank = mark_safe(" data-blank") if BLANK.fullmatch(cell) else ""
        label = format_html(' data-label="{}"{}', name, blank)
        yield mark_safe(opening[0] + label + cell[opening.end() :])  # noqa: S308 - both are safe
