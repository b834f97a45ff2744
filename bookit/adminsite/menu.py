"""The parts of the admin site's menu."""

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Menu(TextChoices):
    """What people do on the pages of a part. The menu shows the parts in this order."""

    DIARY = "diary", _("Diary")
    CATALOG = "catalog", _("Catalog")
    PEOPLE = "people", _("People")
    REVIEWS = "reviews", _("Reviews")
    REPORTS = "reports", _("Reports")
    SYSTEM = "system", _("System")
