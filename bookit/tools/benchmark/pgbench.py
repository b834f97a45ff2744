"""Measures PostgreSQL alone: pgbench runs the statements of a request without any Python."""

import re
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from bookings.models import Booking, BookingEvent
from bookit.runtime.embedded_postgres import binary
from bookit.tools.benchmark.fill import Size, key_sql
from bookit.tools.benchmark.load import CONNECTIONS, LoadError

SERVICE, USER = key_sql("service", ":service"), key_sql("user", ":user")


def scripts(
    statements: Mapping[str, str], size: Size, *, services: int, first_day: datetime
) -> dict[str, str]:
    """Return the script of each case that pgbench can run.

    Args:
        statements: the SQL by name, as `statements.statements` returns it.
        services: the number of services that the case `create` books.
        first_day: a day that is later than all bookings.
    """
    any_service = f"\\set service random(1, {size.services})"
    any_user = f"\\set user random(1, {size.customers})"
    user = {"pk": USER, "user_id": USER}

    def chosen(*names: str) -> list[str]:
        return [statements[name] for name in names]

    return {
        "service": script([any_service], chosen("service"), {"service_id": SERVICE}),
        "services": script([], chosen("services", "services_count"), {}),
        "bookings": script([any_user], chosen("signed_in", "bookings", "bookings_count"), user),
        "create": script(
            [
                any_user,
                # Each client counts its own bookings, so no two bookings have the same number.
                "\\set bookings :bookings + 1",
                f"\\set number :bookings * {CONNECTIONS} + :client_id",
                # As in `Size.quiet_services`: 1, 2, 6, 7, 11, 12 ...
                f"\\set service 5 * ((:number % {services}) / 2) + 1 + :number % {services} % 2",
                f"\\set turn :number / {services}",
            ],
            chosen("signed_in", "terms_at_start", "create"),
            {**user, **_booking(first_day)},
        ),
    }


def _booking(first_day: datetime) -> dict[str, str]:
    """Return the parameters of a booking like those of `create`.

    Here, the terms are the same for all services: half an hour without buffers, one price, and a
    confirmation that is required.
    """
    start = f"(timestamptz '{first_day:%Y-%m-%d} UTC' + :turn * interval '2 hours')"
    end = f"({start} + interval '30 minutes')"
    calendar = key_sql("calendar", ":service")
    return {
        "id": key_sql("new booking", ":number"),
        "service_id": SERVICE,
        "service_ids": f"ARRAY[{SERVICE}]",
        "calendar_id": calendar,
        "slot_id": "NULL",
        "occupant": SERVICE,
        "capacity": "1",
        # BookIt takes the calendar's version from the result of `terms_at_start`. Here, it is read
        # from the calendar, with the same result, because no calendar changes during a run.
        "version": f"(SELECT version FROM catalog_calendar WHERE id = {calendar})",  # noqa: S608 - only our own SQL
        "start_time": start,
        "end_time": end,
        "blocked_from": start,
        "blocked_until": end,
        "status": f"'{Booking.Status.PENDING}'",
        "attendee_name": "''",
        "attendee_email": "''",
        "attendee_phone": "''",
        "language": "''",
        "notes": "''",
        "price": "25",
        "currency": "'USD'",
        "hold_expires_at": "NULL",
        "metadata": "'{}'",
        "event": f"'{BookingEvent.Type.CREATED}'",
        "actor_id": USER,
        "api_key_id": "NULL",
        "at": "now()",
    }


def script(setup: list[str], statements: list[str], values: Mapping[str, str]) -> str:
    """Return a script for pgbench.

    Args:
        setup: the lines that set variables.
        statements: the statements that follow these lines.
        values: the expressions that replace the parameters of the statements.
    """
    lines = list(setup)
    for statement in statements:
        filled = re.sub(r"%\((\w+)\)s", lambda match: values[match[1]], statement)
        lines.append(f"{filled.strip()};")
    return "\n".join(lines) + "\n"


def rate(text: str, url: str, *, seconds: int, directory: Path) -> float:
    """Return how often PostgreSQL runs the script in a second, with `CONNECTIONS` clients.

    Raises:
        LoadError: pgbench or one of its clients failed.
    """
    file = directory / "pgbench.sql"
    file.write_text(text)
    result = subprocess.run(
        [
            *(binary("pgbench"), "--no-vacuum", "--protocol=prepared"),
            *(f"--client={CONNECTIONS}", "--jobs=1", f"--time={seconds}"),
            *("--define=bookings=0", f"--file={file}", url),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"^tps = ([\d.]+)", result.stdout, re.MULTILINE)
    if result.returncode != 0 or found is None:
        output = result.stderr.strip().splitlines() or ["nothing"]
        raise LoadError(f"pgbench failed; it said: {output[-1]}")
    return float(found[1])
