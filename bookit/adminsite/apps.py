"""Django's admin app, with our own admin site instead of Django's."""

from django.contrib.admin.apps import AdminConfig


class AdminSiteConfig(AdminConfig):
    """Sets the class of the admin site, and translates the names of models and fields."""

    default_site = "bookit.adminsite.site.Site"

    def ready(self) -> None:
        """Translate the names of models and fields, then import the `admin` modules."""
        from bookit.adminsite.names import translate_names

        # First, because a form takes its labels from the model when its class is created.
        translate_names()
        super().ready()
