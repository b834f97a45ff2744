"""`manage.py seed_demo`: something to look at."""

from argparse import ArgumentParser
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from bookit.tools.demo import ACCOUNTS, NotEmptyError, fill_with_demo


class Command(BaseCommand):
    """Fills an empty database with a small town, its bookings and its accounts."""

    help = (
        "Fill an empty database with demo data: a small town of businesses, some weeks of bookings"
        " around today, reviews, and accounts whose passwords everybody knows."
    )

    #: Who can sign in, as (role, email, password).
    accounts = ACCOUNTS

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the way past the refusal in production."""
        parser.add_argument(
            "--force",
            action="store_true",
            help="do it in production too, where the known passwords let everybody in",
        )

    def handle(self, *args: Any, force: bool, verbosity: int, **options: Any) -> None:
        """Store it all, or say why not."""
        if settings.PRODUCTION and not force:
            raise CommandError(
                "Demo accounts have known passwords and do not belong in production; "
                "--force creates them all the same."
            )
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date: run manage.py migrate first.")
        self.verbosity = verbosity
        started = monotonic()
        try:
            fill_with_demo(at=timezone.now(), say=self.say)
        except NotEmptyError as reason:
            self.say(f"{reason} Demo data goes into an empty database only: nothing was changed.")
            return
        self.say(f"The demo town is ready, after {monotonic() - started:.1f} s.")
        if not getattr(self, "_called_from_command_line", False):
            return  # `serve` shows them itself, at every start.
        self.say("\nAccounts (role, email, password):")
        for role, email, password in self.accounts:
            self.say(f"  {role:<10}{email:<22}{password}")
        self.say("Every other provider and customer has the same password as the one listed.")

    def say(self, line: str) -> None:
        """Show a line now, also in a pipe; at verbosity 0 nothing."""
        if self.verbosity:
            self.stdout.write(line)
            self.stdout.flush()
