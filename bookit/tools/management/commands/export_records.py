"""`manage.py export_records`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bookit.runtime.startup import exiting_on_signals
from bookit.tools import records


class Command(BaseCommand):
    """Writes all records that another system can use, as JSON Lines, to a file or to stdout."""

    help = (
        "Write all staff roles, accounts, providers' profiles, calendars with opening hours and "
        "time off, services, slots, bookings with their histories, staff notes, waitlists, reviews "
        "and email texts as JSON Lines, for moving to another system. The file contains personal "
        "data, but no passwords. It is not a backup: for that, use the command backup."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the argument for the file."""
        parser.add_argument("file", help="the file, which must not exist; - means stdout")

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        """Write the records. If they go to a file, say how many there are.

        Raises:
            CommandError: the file exists, or the file or stdout cannot be written.
        """
        with exiting_on_signals():
            try:
                if file == "-":
                    sys.stdout.buffer.writelines(records.lines())
                    sys.stdout.flush()
                    return
                path = Path(file)
                # Nobody but the owner may read the file, because it contains personal data.
                path.touch(mode=0o600, exist_ok=False)
                number = _write(path)
            except FileExistsError:
                raise CommandError(f"{file} exists. Choose another name.") from None
            except OSError as error:
                name = "stdout" if file == "-" else file
                raise CommandError(f"{name} cannot be written: {error.strerror}.") from None
        self.stdout.write(f"{file}: {number:,} records.")


def _write(path: Path) -> int:
    """Write the records to a file, and return how many there are; remove the file on failure."""
    number = 0
    try:
        with path.open("wb") as output:
            for line in records.lines():
                output.write(line)
                number += 1
    except BaseException:
        path.unlink()
        raise
    return number
