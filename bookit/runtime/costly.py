"""Costly requests, of which a worker answers only some at a time.

Each may take as long as the time limits allow. If costly requests could occupy every thread, a few
clients would keep everybody else waiting. A request that waits for its turn occupies no thread.
"""

import re
from collections import deque
from functools import cache
from threading import Lock
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from django.urls import URLPattern, get_resolver

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Gives a turn to `most` items at a time; the others wait in a queue. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._waiting: deque[Item] = deque()
        self._lock = Lock()

    def take(self, item: Item) -> bool:
        """Return whether `item` gets a turn now. If not, a later `give_back` returns the item."""
        with self._lock:
            if self._left:
                self._left -= 1
                return True
            self._waiting.append(item)
            return False

    def give_back(self) -> Item | None:
        """End a turn, and return the waiting item that gets it, if there is one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._left += 1
            return None


def may_cost_much(method: str, path: str, query: str) -> bool:
    """Return whether the view marks this read as costly (see `APIMixin.costly_with`)."""
    if method not in ("GET", "HEAD"):
        return False
    # Decode as Django does.
    path = unquote(path)[1:]
    query = unquote(query)
    return any(
        route.match(path) and (parameters is None or parameters.search(query))
        for route, parameters in _routes()
    )


@cache
def _routes() -> list[tuple[re.Pattern[str], re.Pattern[str] | None]]:
    """Return each costly path with the parameters that make it costly; None means always."""
    found: list[tuple[re.Pattern[str], re.Pattern[str] | None]] = []
    waiting: list[Any] = [*get_resolver().url_patterns]
    while waiting:
        pattern = waiting.pop()
        if not isinstance(pattern, URLPattern):
            if str(pattern.pattern) == "":
                waiting += pattern.url_patterns
            continue
        names = getattr(getattr(pattern.callback, "cls", None), "costly_with", None)
        if names is not None:
            alternatives = "|".join(map(re.escape, names))
            parameters = re.compile(rf"(?:^|&)(?:{alternatives})=") if names else None
            found.append((pattern.pattern.regex, parameters))
    return found
