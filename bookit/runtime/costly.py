"""Limits how many costly requests a worker handles at a time.

A costly request may take as long as the time limits allow. If costly requests could occupy every
thread, a few clients would make all other clients wait. A costly request that waits for its turn
occupies no thread.
"""

import re
from collections import deque
from collections.abc import Collection
from functools import cache
from random import choice
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import unquote

from bookit.api.routes import routed_views

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Gives a turn to at most `limit` items at a time; all other items wait. Thread-safe.

    Each item belongs to a group, for example the network of a client. The groups that wait get one
    turn after the other, so a group with many items makes no other group wait for long.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: dict[str, deque[Item]] = {}  # The first group is the next one.
        self._lock = Lock()

    def take(self, item: Item, group: str) -> bool:
        """Return whether `item` gets a turn now. If it does not, it waits."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            self._waiting.setdefault(group, deque()).append(item)
            return False

    def excess(self, most: int) -> Item | None:
        """If more than `most` items wait, remove and return the newest item of the largest group.

        If several groups are the largest, choose one at random. If no more items wait, return None.
        """
        with self._lock:
            sizes = {group: len(items) for group, items in self._waiting.items()}
            if sum(sizes.values()) <= most:
                return None
            largest = max(sizes.values())
            group = choice([group for group, size in sizes.items() if size == largest])  # noqa: S311
            item = self._waiting[group].pop()
            if not self._waiting[group]:
                del self._waiting[group]
            return item

    def give_back(self) -> Item | None:
        """End a turn. Return the waiting item that gets the turn, or None if no item waits."""
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            group = next(iter(self._waiting))
            items = self._waiting.pop(group)
            item = items.popleft()
            if items:
                self._waiting[group] = items  # behind all other groups
            return item


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
