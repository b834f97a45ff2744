"""`manage.py benchmark`: measures how fast BookIt is, or how its costs grow with the database."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.core.management import BaseCommand, CommandError

from bookit.runtime.embedded_postgres import EmbeddedPostgresError, running
from bookit.runtime.servers import ServerError, migrate
from bookit.runtime.startup import exiting_on_signals
from bookit.tools.benchmark.cases import CASE_NAMES
from bookit.tools.benchmark.fill import Size
from bookit.tools.benchmark.growth import LONG_LISTS, SIZES, UNMEASURED, Growth, grow, picture
from bookit.tools.benchmark.jobs import MEASURES, JobsError
from bookit.tools.benchmark.load import LoadError, find_wrk
from bookit.tools.benchmark.measure import Options, UnexpectedResponse, benchmark
from bookit.tools.benchmark.report import Report
from bookit.tools.management.arguments import positive


class Command(BaseCommand):
    """Measures BookIt on this machine, and reports which targets it reaches."""

    help = (
        "Start a temporary PostgreSQL and gunicorn as in production, fill in services and bookings,"
        " and measure requests per second, latencies and memory. The load comes from wrk."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options: what to measure, how long, on how many rows, and where to write."""
        add = parser.add_argument
        add("--json", type=Path, metavar="FILE", help="write the results of every run to this file")
        add("--seconds", type=positive, default=3, help="length of a run (default: %(default)s)")
        add("--rounds", type=positive, default=5, help="runs of each case (default: %(default)s)")
        add(
            "--only",
            nargs="+",
            choices=[*CASE_NAMES, *MEASURES, *LONG_LISTS],
            metavar="NAME",
            default=[],
            help="what to measure (default: all): cases, jobs (without --growth), long lists (with"
            " --growth)",
        )
        add(
            "--pgbouncer",
            action="store_true",
            help="without --growth, compare BookIt with BookIt behind PgBouncer, not with the bare"
            " WSGI function",
        )
        add(
            "--growth",
            type=Path,
            metavar="FILE",
            help="measure how costs grow with up to ten million bookings, and write a picture (SVG)"
            " to this file; this needs 25 GB of disk space and an hour",
        )
        stored = "number to store, without --growth (default: {})"
        add("--services", type=positive, help=stored.format(Size.services))
        add("--bookings", type=positive, help=stored.format(Size.bookings))

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure, and write the report. The command succeeds even if a target is missed.

        Raises:
            CommandError: `--only` names something that this run does not measure, an option cannot
                be used with `--growth`, or the run fails.
        """
        if options["growth"] is not None:
            self.check_options(options)
        chosen = Options(
            size=Size(options["services"] or Size.services, options["bookings"] or Size.bookings),
            seconds=options["seconds"],
            rounds=options["rounds"],
            only=tuple(options["only"]),
            pgbouncer=options["pgbouncer"],
        )
        self.check_names(chosen.only, grows=options["growth"] is not None)
        try:
            with (
                exiting_on_signals(),
                TemporaryDirectory(prefix="bookit-benchmark-", ignore_cleanup_errors=True) as name,
            ):
                directory = Path(name)
                # If wrk is missing, fail before a database is filled.
                if chosen.need_load or options["growth"] is not None:
                    find_wrk()
                if options["growth"] is not None:
                    self.grow(chosen, options["growth"], options["json"], directory)
                else:
                    self.write(self.measure(chosen, directory), options["json"])
        except (
            EmbeddedPostgresError,
            ServerError,
            LoadError,
            JobsError,
            UnexpectedResponse,
        ) as error:
            raise CommandError(str(error)) from None

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check that no option contradicts `--growth`.

        Raises:
            CommandError: a size is set, or PgBouncer is to be measured.
        """
        wrong = [f"--{name}" for name in ("services", "bookings", "pgbouncer") if options[name]]
        if wrong:
            raise CommandError(
                "With --growth, the databases have fixed sizes, and PgBouncer is not measured."
                f" Leave out --growth, or leave out: {', '.join(wrong)}."
            )

    def check_names(self, only: Sequence[str], *, grows: bool) -> None:
        """Check that a run, with or without `--growth`, measures everything that `--only` names.

        Raises:
            CommandError: `only` contains a name that the run does not measure.
        """
        cases = {*CASE_NAMES}
        measured = cases - UNMEASURED | {*LONG_LISTS} if grows else cases | {*MEASURES}
        wrong = [name for name in only if name not in measured]
        if wrong:
            run = "With --growth" if grows else "Without --growth"
            raise CommandError(f"{run}, the benchmark does not measure: {', '.join(wrong)}.")

    def measure(self, chosen: Options, directory: Path) -> Report:
        """Fill one database, measure BookIt with it, and return the report."""
        # PostgreSQL uses fsync, as in production.
        with running(directory / "postgres") as url:
            self.say("Migrating.")
            migrate(url)
            return benchmark(url, chosen, directory=directory, say=self.say)

    def grow(self, chosen: Options, image: Path, file: Path | None, directory: Path) -> None:
        """Fill databases of several sizes, measure each, and write the results and the picture.

        If an error or a signal ends the run, the results so far are written.
        """
        growth = Growth(SIZES)
        try:
            grow(
                growth,
                directory=directory,
                seconds=chosen.seconds,
                rounds=chosen.rounds,
                only=chosen.only,
                say=self.say,
            )
        finally:
            if growth.lines:
                image.write_text(picture(growth.sizes, growth.lines))
                self.write(growth, file)

    def write(self, report: Report | Growth, file: Path | None) -> None:
        """Write the report to stdout and, if a file is named, the results of every run to it."""
        self.stdout.write(f"\n{report.text()}")
        if file is not None:
            file.write_text(json.dumps(report.content(), indent=2) + "\n")

    def say(self, message: str) -> None:
        """Write a line about the progress to stderr, apart from the report."""
        self.stderr.write(message)
