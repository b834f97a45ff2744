"""How many connections each worker has, for all of them to have about the same.

Every worker of gunicorn accepts from the same socket, and the one that is quicker takes all. Since
clients keep their connections, one worker could then work while another has nothing to do.
"""

from mmap import mmap
from time import monotonic

# How many workers can have a place; those that find none take connections as they come.
PLACES = 128
# A worker that is silent for longer than this, in seconds, is stuck or dead.
SILENCE = 2.5


class Spread:
    """A table in memory that the workers share: their connections, and when they last lived."""

    def __init__(self, places: int = PLACES) -> None:
        memory = memoryview(mmap(-1, places * 16 + 8))
        self._counts = memory[: places * 8].cast("q")
        self._beats = memory[places * 8 : places * 16].cast("d")
        self._used = memory[places * 16 :].cast("q")  # how many places were ever taken
        self._places = places
        self._taken: set[int] = set()

    def take(self) -> int | None:
        """Return a free place, for a worker that is about to be forked."""
        place = next((each for each in range(self._places) if each not in self._taken), None)
        if place is not None:
            self._taken.add(place)
            self._used[0] = max(self._used[0], place + 1)
            self._counts[place], self._beats[place] = 0, 0.0
        return place

    def free(self, place: int | None) -> None:
        """Give back the place of a worker that has ended."""
        if place is not None:
            self._taken.discard(place)
            self._beats[place] = 0.0

    def note(self, place: int | None, connections: int) -> None:
        """Note that the worker in `place` lives, and how many connections it has."""
        if place is not None:
            self._counts[place], self._beats[place] = connections, monotonic()

    def others(self, place: int | None) -> int | None:
        """Return how many connections the living worker with the fewest has, except `place`."""
        if place is None:
            return None
        alive = monotonic() - SILENCE
        return min(
            (
                self._counts[each]
                for each in range(self._used[0])
                if each != place and self._beats[each] > alive
            ),
            default=None,
        )

    def should_leave(self, place: int | None, connections: int) -> bool:
        """Return whether another worker should accept the next connection."""
        least = self.others(place)
        # Where there are many, a few more or less are not worth waiting for.
        return least is not None and connections > least + least // 8
