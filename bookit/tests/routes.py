"""Lists the paths of BookIt's URL configuration."""

import re
from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, get_resolver

ANY_ID = "01980000-0000-7000-8000-000000000000"


def every_route(patterns: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each route, as the URLconf writes it, and its view."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route, pattern.callback
        else:
            yield from every_route(pattern.url_patterns, route)


def every_path() -> Iterator[tuple[str, Any]]:
    """Yield each path and its view. The ids in the paths belong to no row."""
    for route, view in every_route():
        yield f"/{_filled(route)}", view


def _filled(route: str) -> str:
    route = re.sub(r"<(slug:code)>", "throttled", route)
    # A group of alternatives becomes the first of them, as in `(?P<app_label>accounts|catalog)`.
    route = re.sub(r"\(\?P<\w+>(\w*)[^)]*\)", lambda group: group[1] or "nothing", route)
    route = re.sub(r"[\^$]", "", route)
    return re.sub(r"<\w+(:\w+)?>", ANY_ID, route)


def api_paths() -> list[str]:
    """Return the paths of the API's endpoints."""
    return [path for path, view in every_path() if hasattr(view, "actions")]
