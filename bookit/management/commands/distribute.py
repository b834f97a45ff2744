"""`manage.py distribute`."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from bookit.database.citus import conversion

EXPERIMENTAL = (
    "Distributed databases are experimental. docs/scaling.md says what does not work on them yet."
)


class Command(BaseCommand):
    """Spreads the database over the servers of a Citus cluster."""

    help = (
        "Spread the database over the servers of a Citus cluster, by calendar. Stop the web and "
        "worker processes first."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option that only shows the steps."""
        parser.add_argument(
            "--check",
            action="store_true",
            help="only show what the command would do, or what prevents it",
        )

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        """Distribute the database, unless `--check` is given, and show the steps."""
        if found := conversion.problems():
            raise CommandError("\n".join(found))
        try:
            steps = conversion.steps() if check else conversion.distribute()
        except conversion.CannotDistribute as error:
            raise CommandError(str(error)) from None
        for step in steps:
            self.stdout.write(step.words)
        if check:
            self.stdout.write("Nothing was changed.")
        self.stdout.write(EXPERIMENTAL)
