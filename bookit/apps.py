"""The plumbing: what no domain owns."""

from django.apps import AppConfig


class BookItConfig(AppConfig):
    """Configuration of the plumbing app, which has commands and templates but no models."""

    name = "bookit"
    verbose_name = "BookIt"
