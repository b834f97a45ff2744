"""The parts of the admin site's menu."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Menu(TextChoices):
    """The parts of the menu, in their order. Pages are grouped by subject, not by app."""

    DIARY = "diary", _("Diary")
    CATALOG = "catalog", _("Catalog")
    PEOPLE = "people", _("People")
    REVIEWS = "reviews", _("Reviews")
    REPORTS = "reports", _("Reports")
    SYSTEM = "system", _("System")
