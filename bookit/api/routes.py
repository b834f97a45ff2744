"""The URL patterns of BookIt's own views."""

from collections.abc import Iterator
from typing import Any

from django.urls import URLPattern, get_resolver


def routed_views() -> Iterator[tuple[URLPattern, Any]]:
    """Yield each URL pattern outside the admin site, with its view class or view function."""
    waiting: list[Any] = [*get_resolver().url_patterns]
    while waiting:
        pattern = waiting.pop()
        if isinstance(pattern, URLPattern):
            yield pattern, getattr(pattern.callback, "cls", pattern.callback)
        elif str(pattern.pattern) == "":  # The URLs of an app. Only the admin site has a prefix.
            waiting += pattern.url_patterns
