"""The extension point for apps whose tables contain positions (see `bookit.restores`)."""

from collections.abc import Callable
from typing import NamedTuple

from bookit.extensions import Extensions


class Positions(NamedTuple):
    """The positions in the tables of an app.

    Args:
        last: returns the highest position of a row, or None if there is no row.
        move: takes `boundary`, which is above the positions of all rows, and `shift`, and subtracts
            `shift` from each position. An app can also store the position up to which it has read
            rows. If that position is above `boundary`, `move` first lowers it to `boundary`.
    """

    last: Callable[[], int | None]
    move: Callable[[int, int], None]


#: The positions of each app, by the name of the app.
POSITIONS: Extensions[Positions] = Extensions()
