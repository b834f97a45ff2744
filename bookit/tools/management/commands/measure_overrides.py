"""`manage.py measure_overrides`: measures how much CPU time BookIt's overrides save."""

from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.contrib.auth.hashers import make_password
from django.core.management import BaseCommand, CommandError

from bookit.runtime.embedded_postgres import EmbeddedPostgresError, running
from bookit.runtime.servers import ServerError, connected_to, migrate
from bookit.runtime.startup import exiting_on_signals
from bookit.tools.benchmark.fill import Size, fill
from bookit.tools.benchmark.overrides import ROUNDS, SCHEDSTAT, measure
from bookit.tools.management.arguments import positive

SIZE = Size(services=1_000, bookings=5_000)


class Command(BaseCommand):
    """Measures each override that docs/django-and-drf.md lists with a gain."""

    help = (
        "Start a temporary PostgreSQL, fill it with services and bookings, and measure the CPU time"
        " of requests with and without each override whose gain docs/django-and-drf.md states."
        " Linux only."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the option for the number of rounds."""
        parser.add_argument(
            "--rounds",
            type=positive,
            default=ROUNDS,
            help="number of rounds for each override, with and without it (default: %(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure, and write a line for each override and kind of request.

        Raises:
            CommandError: this machine does not tell the CPU time of a process, or PostgreSQL or the
                migration fails.
        """
        if not Path(SCHEDSTAT.format("self")).exists():
            raise CommandError("This command needs Linux: it reads CPU times from /proc.")
        try:
            with (
                exiting_on_signals(),
                TemporaryDirectory(prefix="bookit-overrides-", ignore_cleanup_errors=True) as name,
                running(Path(name) / "postgres") as url,
            ):
                migrate(url)
                with connected_to(url):
                    fill(SIZE, password=make_password("not used"))
                    self.stdout.write("gain   CPU time  spread  override")
                    for gain in measure(SIZE, rounds=options["rounds"]):
                        self.stdout.write(
                            f"{gain.part:5.1%}  {gain.microseconds:5.0f} µs    {gain.spread:.2f}"
                            f"  {gain.override}: {gain.case}"
                        )
        except (EmbeddedPostgresError, ServerError) as error:
            raise CommandError(str(error)) from None
