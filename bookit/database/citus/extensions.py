"""The extension point for functions that run on the server that has the rows of a calendar."""

from bookit.extensions import Extensions

#: SQL functions by their signatures, for example `book(uuid, jsonb)`. The first argument of each
#: function is the id of a calendar, and is called `calendar_id`. `{calendars}` in the SQL becomes
#: the name of the table of calendars on the server that runs the function.
CALENDAR_FUNCTIONS: Extensions[str] = Extensions()
