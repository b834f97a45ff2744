"""`manage.py makemessages`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    """Updates the catalogues of translations, and compiles them.

    Django's own command of this name would not find all texts: the messages of errors are
    docstrings, and the names of fields follow from names in the code. Django's command also needs
    GNU gettext.
    """

    help = "Update and compile the catalogues of translations in bookit/locale."

    def handle(self, *args: Any, **options: Any) -> None:
        """Update the catalogue of each language, and say how many texts have no translation."""
        try:
            from bookit.tools.messages import catalogues
        except ModuleNotFoundError as error:
            raise CommandError(
                f"This command needs {error.name}: pip install -r .ci/requirements.txt"
            ) from None
        from bookit.tools.messages.collecting import messages

        found = messages()
        for language in catalogues.LANGUAGES:
            catalogue = catalogues.updated(language, found)
            catalogues.write(language, catalogue)
            missing = len(catalogues.untranslated(catalogue))
            self.stdout.write(
                f"{catalogues.file_of(language, 'po')}: {len(catalogue)} texts, "
                f"{missing} without a translation."
            )
