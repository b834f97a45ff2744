"""`manage.py import_csv`: imports customers, calendars, services or bookings from a CSV file."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import BaseCommand, CommandError
from django.db import Error
from django.utils import timezone

from accounts.emails import lookup_form
from accounts.models import User
from bookings.imports import services as imports
from bookings.imports.files import ENCODINGS, MAX_BYTES, decode
from bookings.imports.lines import KINDS
from bookit.adminsite.refusals import message_of
from bookit.errors import ServiceError, is_database_unavailable

# At most this many problems are printed. The command only counts the others.
MOST = 200


class Command(BaseCommand):
    """Imports a CSV file. Without `--apply`, the command only checks the file."""

    help = (
        "Import a CSV file of customers, calendars, services or bookings. Import several files in "
        "this order. Without --apply, only check the file. Wrong lines are listed with the "
        "reason. All lines are imported or none, and a line whose record exists already is skipped."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the kind of file, its path and encoding, the admin who imports it, and `--apply`."""
        parser.add_argument("kind", choices=[*KINDS])
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--admin", required=True, help="the email address of the admin who imports"
        )
        parser.add_argument("--apply", action="store_true", help="import, if all lines are valid")
        parser.add_argument(
            "--encoding",
            choices=[*filter(None, ENCODINGS)],
            default="",
            help="the encoding of the file, if it is neither UTF-8 nor UTF-16",
        )

    def handle(
        self,
        *args: Any,
        kind: str,
        file: Path,
        admin: str,
        apply: bool,
        encoding: str,
        **options: Any,
    ) -> None:
        """Check the file and, with `--apply`, import it.

        Raises:
            CommandError: `admin` is not an active admin, the file cannot be read, a line is wrong,
                another import is running, or PostgreSQL is unavailable or takes too long.
        """
        actor = User.objects.filter(email=lookup_form(admin), is_active=True).first()
        if actor is None or not actor.is_admin:
            raise CommandError(f"{admin} is not an active admin.")
        try:
            with file.open("rb") as opened:
                content = opened.read(MAX_BYTES + 1)
            text = decode(content, encoding)
            report = imports.import_file(
                kind=kind,
                text=text,
                actor=actor,
                at=timezone.now(),
                is_applied=apply,
                progress=self._show_progress,
            )
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}.") from None
        except ServiceError as error:
            raise CommandError(message_of(error)) from None
        except Error as error:
            if not is_database_unavailable(error):
                raise
            # If the connection was lost during the commit, nobody knows whether the lines were
            # stored.
            raise CommandError(
                f"{str(error).strip().rstrip('.')}. Check the file again: if its lines were "
                "imported, they are skipped."
            ) from None
        self._show(report, apply=apply)

    def _show_progress(self, progress: imports.Progress) -> None:
        self.stderr.write(f"{progress.done:,} of {progress.total:,} lines")

    def _show(self, report: imports.Report, *, apply: bool) -> None:
        for problem in report.problems[:MOST]:
            column = f", {problem.column}" if problem.column else ""
            self.stdout.write(f"Line {problem.line}{column}: {problem.message}")
        if len(report.problems) > MOST:
            self.stdout.write(f"... and {len(report.problems) - MOST:,} more.")
        counts = f"{report.new:,} new, {report.present:,} already there"
        if report.problems:
            cut = " The check stopped early. There may be more problems." if report.is_cut else ""
            number = len(report.problems)
            problems = "1 problem" if number == 1 else f"{number:,} problems"
            raise CommandError(f"{counts}, {problems}. Nothing was imported.{cut}")
        done = "Imported." if apply else "Nothing was imported yet: add --apply."
        self.stdout.write(f"{counts}. {done}")
