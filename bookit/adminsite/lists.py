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
BLANK = re.compile(r"<[^>]*>-?</(?:td|th)>")


@register.filter
def named_by(cells: Iterable[SafeString], headers: list[dict[str, Any]]) -> Iterator[SafeString]:
    """Yield the cells of a row, each with the name of its column in `data-label`.

    On a narrow screen, a row is a card, and the style sheet shows the name in front of each value.
    """
    columns = iter(headers)
    for cell in cells:
        header = next(columns, None)
        label = _label(header) if header else ""
        opening = CELL.match(cell)
        if not label or not opening:
            yield cell
            continue
        # On a narrow screen, an empty value gets no line.
        blank = " data-blank" if BLANK.fullmatch(cell) else ""
        yield mark_safe(opening[0] + label + blank + cell[opening.end() :])  # noqa: S308 - safe


def _label(header: dict[str, Any]) -> str:
    """Return the attribute with the name of a column.

    The attribute is stored in the header: a page has hundreds of cells, and translating the name
    for each cell would take time.
    """
    if "label" not in header:
        text = str(header["text"])
        # The header of the column of checkboxes is itself a checkbox, not a name.
        named = text and "<" not in text
        header["label"] = format_html(' data-label="{}"', capfirst(text)) if named else ""
    label: str = header["label"]
    return label
