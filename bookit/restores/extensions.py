"""The extension point for apps whose tables contain positions."""

from collections.abc import Callable
from typing import NamedTuple

from bookit.extensions import Extensions


class Positions(NamedTuple):
    """The positions in the tables of an app.

    Args:
        last: returns the highest position of a row, or None if there is no row.
        move: takes `boundary` and `shift`, and subtracts `shift` from each position. A position up
            to which rows have been read may be above all rows, so `move` first lowers such a
            position to `boundary`.
    """

    last: Callable[[], int | None]
    move: Callable[[int, int], None]


#: The positions of each app, by the name of the app.
POSITIONS: Extensions[Positions] = Extensions()
