"""`manage.py restore`."""

import sys
from argparse import ArgumentParser
from contextlib import ExitStack
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bookit.errors.pending import pending_migrations, unknown_migrations
from bookit.runtime import dumps


class Command(BaseCommand):
    """Restores a backup that `manage.py backup` has written."""

    help = (
        "Restore a file that `manage.py backup` has written, in one transaction. The database must "
        "be empty, or use --clean. Stop web and worker processes first."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the arguments for the file and for the old data."""
        parser.add_argument("file", help="the backup; - means stdin")
        parser.add_argument(
            "--clean",
            action="store_true",
            help="first delete everything in the schema public of the database",
        )

    def handle(self, *args: Any, file: str, clean: bool, **options: Any) -> None:
        """Restore the backup, and say if it comes from an older or from a newer version."""
        with ExitStack() as opened:
            try:
                source = sys.stdin.buffer if file == "-" else opened.enter_context(open(file, "rb"))
            except OSError as error:
                raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
            try:
                dumps.restore(source, clean=clean)
            except dumps.DumpError as error:
                raise CommandError(error) from None
        self.stdout.write("The backup is restored.")
        count = pending_migrations()
        if count:
            self.stdout.write(f"Migrations to apply: {count}. Run manage.py migrate.")
        if newer := unknown_migrations():
            self.stderr.write(
                "The backup comes from a newer version of BookIt, and may not work with this one,"
                f" which does not know {', '.join(newer)}."
            )
