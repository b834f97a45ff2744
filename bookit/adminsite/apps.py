"""Django's admin app, with our admin site in place of its own."""

from django.contrib.admin.apps import AdminConfig


class AdminSiteConfig(AdminConfig):
    """Sets the class of the admin site."""

    default_site = "bookit.adminsite.site.Site"
