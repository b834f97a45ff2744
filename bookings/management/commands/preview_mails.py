"""`manage.py preview_mails`: writes a sample of every email about bookings."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError

from bookings.mails import samples
from bookings.mails.composition import Mail
from bookings.mails.occasions import ATTENDEE, FORMER
from bookit.languages import SOURCE, speaking


class Command(BaseCommand):
    """Writes every kind of email about a made-up booking, for every recipient."""

    help = (
        "Write a sample of every kind of email about bookings to files, one set for each recipient:"
        " the text (.txt), the HTML (.html), the calendar file if there is one (.ics), and the"
        " whole email (.eml). No database is needed."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the directory in which the files are written, and the language of the emails."""
        parser.add_argument("directory", nargs="?", default="mails", type=Path)
        languages = [code for code, _name in settings.LANGUAGES]
        parser.add_argument("--language", choices=languages, default=SOURCE)

    def handle(self, *args: Any, directory: Path, language: str, **options: Any) -> None:
        """Write the files."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _write_all(directory, language)
        except OSError as error:
            raise CommandError(f"Cannot write to {directory}: {error.strerror}.") from None
        self.stdout.write(f"The mails are in {directory.resolve()}.")


def _write_all(directory: Path, language: str) -> None:
    readers = {name: occasion.audiences for name, occasion in samples.OCCASIONS.items()}
    readers["handed-over"].append(FORMER)
    readers |= {name: [ATTENDEE] for name in samples.PLACES}
    for name, audiences in readers.items():
        for audience in audiences:
            with speaking(language):
                mail = samples.mail(name, audience, texts={})
            _write(mail, directory / f"{name}-{audience}")


def _write(mail: Mail, file: Path) -> None:
    file.with_suffix(".txt").write_text(f"{mail.subject}\n\n{mail.text}", "utf-8")
    file.with_suffix(".html").write_text(mail.html, "utf-8")
    file.with_suffix(".eml").write_bytes(mail.message().message().as_bytes())
    if mail.calendar:
        file.with_suffix(".ics").write_bytes(mail.calendar.encode())
