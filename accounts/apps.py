"""The accounts app."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Configuration of the accounts app."""

    name = "accounts"

    def import_models(self) -> None:
        """Import the models of the rooms too; Django looks only in `accounts/models.py`."""
        super().import_models()
        from accounts.links import models  # noqa: F401
