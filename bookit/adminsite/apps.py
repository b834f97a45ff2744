"""Django's admin app, with our own admin site instead of Django's."""

from django.contrib.admin.apps import AdminConfig


class AdminSiteConfig(AdminConfig):
    """Sets the class of the admin site."""

    default_site = "bookit.adminsite.site.Site"

    def ready(self) -> None:
        """Translate the names of models, which the admin pages show."""
        from bookit.adminsite.names import translate_names

        translate_names()
        super().ready()
