"""What other apps add: the tables that contain positions."""

from collections.abc import Callable
from typing import NamedTuple

from bookit.extensions import Extensions


class Positions(NamedTuple):
    """The positions in the tables of an app.

    Args:
        last: returns the highest position of a row, or None if there is no row.
        move: subtracts `shift` from each position. Positions of what has been read, which can be
            above all rows, become at most `boundary` first.
    """

    last: Callable[[], int | None]
    move: Callable[[int, int], None]


#: The positions of each app, by the name of the app.
POSITIONS: Extensions[Positions] = Extensions()
