"""`manage.py benchmark`: how fast BookIt is on this machine, and how fast it could be."""

import json
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError

from bookit.runtime.embedded_postgres import EmbeddedPostgresError, running
from bookit.tools.benchmark.fill import Size
from bookit.tools.benchmark.jobs import MEASURES, JobsError
from bookit.tools.benchmark.load import LoadError
from bookit.tools.benchmark.measure import CASE_NAMES, Disagreement, Options, benchmark
from bookit.tools.benchmark.servers import ServerError, migrate


class Command(BaseCommand):
    """Measures BookIt beside a bare WSGI function and beside PostgreSQL alone."""

    help = (
        "Start a throw-away PostgreSQL and gunicorn as in production, fill in services and"
        " bookings, and measure requests per second, latencies and memory."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add what is measured, how long, and where the findings go."""
        add = parser.add_argument
        add("--json", type=Path, metavar="FILE", help="write every single run there")
        add("--seconds", type=_positive, default=3, help="of a run (default: %(default)s)")
        add("--rounds", type=_positive, default=5, help="of runs (default: %(default)s)")
        add(
            "--only",
            nargs="+",
            choices=[*CASE_NAMES, *MEASURES],
            default=[],
            help="what is measured",
        )
        add("--services", type=_positive, default=1_000, help="(default: %(default)s)")
        add("--bookings", type=_positive, default=100_000, help="(default: %(default)s)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure, and report; targets that were not reached are said, and no error."""
        chosen = Options(
            size=Size(options["services"], options["bookings"]),
            seconds=options["seconds"],
            rounds=options["rounds"],
            only=tuple(options["only"]),
        )
        # As exceptions, like Ctrl-C, so that what was started is stopped on the way out.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
        directory = Path(tempfile.mkdtemp(prefix="bookit-benchmark-"))
        try:
            # As in production: what is answered is on disk.
            with running(directory / "postgres") as url:
                self.say("Migrating.")
                migrate(url)
                report = benchmark(url, chosen, directory=directory, say=self.say)
        except (EmbeddedPostgresError, ServerError, LoadError, JobsError, Disagreement) as error:
            raise CommandError(str(error)) from None
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        self.stdout.write(f"\n{report.text()}")
        if options["json"] is not None:
            options["json"].write_text(json.dumps(report.content(), indent=2) + "\n")

    def say(self, message: str) -> None:
        """Tell of the progress, apart from the report."""
        self.stderr.write(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
