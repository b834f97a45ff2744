"""The points at which other apps extend the admin site."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import URLPattern

from bookit.extensions import Extensions


@dataclass(frozen=True)
class Pages:
    """Pages that do not belong to one model.

    Args:
        title: the heading above the links to them.
        address: the name of the URL to which the heading leads.
        urls: their URLs. Their views use `admin_view`.
        links: returns the text and the address of each link that the user may follow.
    """

    title: Any
    address: str
    urls: list[URLPattern]
    links: Callable[[HttpRequest], list[tuple[Any, str]]]


# The pages, by a name that no app has.
PAGES: Extensions[Pages] = Extensions()
