"""`manage.py seed_demo`: fills an empty database with the demo town."""

from argparse import ArgumentParser
from functools import cached_property
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError
from django.utils import timezone

from bookit.errors.pending import pending_migrations
from bookit.tools.demo.entries import TownError
from bookit.tools.demo.fill import NotEmptyError, fill_with_demo
from bookit.tools.demo.reader import read_town
from bookit.tools.demo.town import Account, Town


class Command(BaseCommand):
    """Fills an empty database with a small town, its bookings and its accounts."""

    help = (
        "Fill an empty database with demo data: the businesses of a small town, some weeks of"
        " bookings around today, reviews, and accounts whose passwords are published."
    )

    @cached_property
    def town(self) -> Town:
        """The town, as its files describe it."""
        try:
            return read_town()
        except TownError as error:
            raise CommandError(str(error)) from None

    @property
    def accounts(self) -> list[Account]:
        """The accounts whose passwords are shown."""
        return self.town.accounts

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option that allows demo data in production."""
        parser.add_argument(
            "--force",
            action="store_true",
            help="fill the database in production too, where anybody can then sign in",
        )

    def handle(self, *args: Any, force: bool, verbosity: int, **options: Any) -> None:
        """Store the town, or say why nothing was stored."""
        if settings.PRODUCTION and not force:
            raise CommandError(
                "Demo accounts have known passwords and do not belong in production. "
                "Use --force to create them anyway."
            )
        if pending_migrations():
            raise CommandError("The database is not up to date. Run manage.py migrate first.")
        self.verbosity = verbosity
        started = monotonic()
        try:
            fill_with_demo(self.town, at=timezone.now(), say=self.say)
        except NotEmptyError as reason:
            self.say(f"{reason} Demo data goes into an empty database only: nothing was changed.")
            return
        except TownError as error:
            raise CommandError(str(error)) from error
        self.say(f"The demo town is ready after {monotonic() - started:.1f} s.")
        if not getattr(self, "_called_from_command_line", False):
            return  # `serve` shows the accounts itself, each time it starts.
        self.say("\nAccounts (role, email, password):")
        for role, email, password in self.accounts:
            self.say(f"  {role:<10}{email:<22}{password}")
        self.say("All other providers and customers have the password of their role.")

    def say(self, line: str) -> None:
        """Write a line at once, even if the output is a pipe. Write nothing at verbosity 0."""
        if self.verbosity:
            self.stdout.write(line)
            self.stdout.flush()
