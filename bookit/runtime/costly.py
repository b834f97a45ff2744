"""Limits how many costly requests a worker handles at a time.

A costly request may take as long as the time limits allow. If costly requests could occupy every
thread, a few clients would make all other clients wait. A costly request that waits for its turn
occupies no thread.
"""

import re
from collections import deque
from collections.abc import Collection
from functools import cache
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import unquote

from bookit.api.routes import routed_views

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Gives a turn to at most `limit` items at a time; all other items wait. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: deque[Item] = deque()
        self._lock = Lock()

    @property
    def waiting(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    def take(self, item: Item) -> bool:
        """Return whether `item` gets a turn now. If it does not, a later `give_back` returns it."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.append(item)
            return False

    def give_back(self) -> Item | None:
        """End a turn. Return the waiting item that gets the turn, or None if no item waits."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._free += 1
            return None


# The value of `costly_with` for a view whose reads are all costly, whatever their parameters.
ALWAYS: Collection[str] = ()


def may_cost_much(method: str, path: str, query: str) -> bool:
    """Return whether this request is a read that its view marks as costly.

    A view class marks costly reads with `APIMixin.costly_with`. A view function has an attribute of
    the same name.
    """
    if method not in ("GET", "HEAD"):
        return False
    # Decode as Django does, but decode the query before it is split: a value that looks like a
    # parameter only makes the request wait for a turn.
    path = unquote(path)[1:]
    query = unquote(query)
    return any(
        route.match(path) and (parameters is None or parameters.search(query))
        for route, parameters in _routes()
    )


@cache
def _routes() -> list[tuple[re.Pattern[str], re.Pattern[str] | None]]:
    """Return each costly path with the parameters that make it costly; None means always costly."""
    found: list[tuple[re.Pattern[str], re.Pattern[str] | None]] = []
    for pattern, view in routed_views():
        names = getattr(view, "costly_with", None)
        if names is not None:
            alternatives = "|".join(map(re.escape, names))
            parameters = re.compile(rf"(?:^|&)(?:{alternatives})=") if names else None
            found.append((pattern.pattern.regex, parameters))
    return found
