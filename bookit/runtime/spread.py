"""Balances connections between gunicorn's workers.

All workers accept connections from the same socket. Without this module, the quickest worker would
accept most connections. Because clients keep their connections open, that worker would be busy
while the other workers are idle.
"""

from mmap import mmap
from time import monotonic

# The number of places in the table of `Spread`; each worker needs a place. A worker without a place
# leaves no connections to other workers.
PLACES = 128
# A worker that has reported nothing for this many seconds counts as stuck or dead.
SILENCE = 2.5


class Spread:
    """A table in shared memory: the number of connections and the last report of each worker."""

    def __init__(self, places: int = PLACES) -> None:
        memory = memoryview(mmap(-1, places * 16 + 8))
        self._counts = memory[: places * 8].cast("q")
        self._beats = memory[places * 8 : places * 16].cast("d")
        # A single number, which is greater than every place that was ever taken.
        self._used = memory[places * 16 :].cast("q")
        self._places = places
        # Not in shared memory, because only the main process takes and frees places.
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """Take a place for a worker that is about to be forked; return None if all are taken."""
        place = next((each for each in range(self._places) if each not in self._taken), None)
        if place is not None:
            self._taken.add(place)
            self._used[0] = max(self._used[0], place + 1)
            self._counts[place], self._beats[place] = 0, 0.0
        return place

    def free(self, place: int | None) -> None:
        """Free the place of a worker that has ended."""
        if place is not None:
            self._taken.discard(place)
            self._beats[place] = 0.0

    def note(self, place: int | None, connections: int) -> None:
        """Record that the worker in `place` is alive, and how many connections it has."""
        if place is not None:
            self._counts[place], self._beats[place] = connections, monotonic()

    def fewest_of_others(self, place: int | None) -> int | None:
        """Return the smallest number of connections of any other live worker.

        Return None if no other worker is live, or if this worker has no place.
        """
        if place is None:
            return None
        earliest = monotonic() - SILENCE
        return min(
            (
                self._counts[each]
                for each in range(self._used[0])
                if each != place and self._beats[each] > earliest
            ),
            default=None,
        )

    def should_leave(self, place: int | None, connections: int) -> bool:
        """Return whether this worker should leave the next connection to another worker."""
        least = self.fewest_of_others(place)
        # With many connections, a small difference does not justify the pause in `Worker.accept`.
        return least is not None and connections > least + least // 8
