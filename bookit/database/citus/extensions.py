"""The extension points of a distributed database."""

from dataclasses import dataclass

from bookit.extensions import Extensions


@dataclass(frozen=True)
class CalendarFunction:
    """A function in PL/pgSQL with the arguments `calendar_id uuid` and `p jsonb` (other values).

    Args:
        columns: the columns that the function returns, with their types.
        body: the PL/pgSQL, which ends with END. It may use only tables of calendars, and tables of
            which every server has a copy.
    """

    columns: str
    body: str


#: The functions by their names.
CALENDAR_FUNCTIONS: Extensions[CalendarFunction] = Extensions()

#: Statements that fill tables from rows of calendars, by the names of the tables. Only a
#: distributed database uses these tables. Each run of `distribute` executes the statements, so they
#: must be repeatable.
FILLED_FROM_CALENDARS: Extensions[str] = Extensions()
