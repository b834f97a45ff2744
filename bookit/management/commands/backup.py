"""`manage.py backup`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bookit.runtime import dumps
from bookit.runtime.startup import exiting_on_signals


class Command(BaseCommand):
    """Writes a backup of the database to a file or to stdout."""

    help = "Write a backup of the database, in pg_dump's custom format, to a new file or to stdout."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the argument for the file."""
        parser.add_argument("file", help="the file, which must not exist; - means stdout")

    def handle(self, *args: Any, file: str, **options: Any) -> None:
        """Write the backup."""
        try:
            with exiting_on_signals():
                self._write(file)
        except dumps.DumpError as error:
            raise CommandError(error) from None

    def _write(self, file: str) -> None:
        if file != "-":
            size = dumps.backup(Path(file))
            self.stdout.write(f"{file}: {size:,} bytes.")
        elif sys.stdout.isatty():
            raise CommandError("A backup is not text. Redirect stdout to a file.")
        else:
            dumps.dump(sys.stdout.buffer)
