"""The accounts app."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AccountsConfig(AppConfig):
    """Configuration of the accounts app. Its rooms are packages, each with one subject."""

    name = "accounts"
    verbose_name = _("Accounts and roles")

    def import_models(self) -> None:
        """Import the models of the rooms too; Django looks only in `accounts/models.py`."""
        super().import_models()
        from accounts.keys import models as _keys  # noqa: F401 - the import registers them
        from accounts.links import models as _links  # noqa: F401 - the import registers them
        from accounts.roles import models as _roles  # noqa: F401 - the import registers them
        from accounts.sessions import models as _sessions  # noqa: F401 - the import registers them

    def ready(self) -> None:
        """Register permissions, the OpenAPI description of tokens, and the descriptions of jobs."""
        from accounts import permissions, schema, subjects  # noqa: F401 - the imports register them
