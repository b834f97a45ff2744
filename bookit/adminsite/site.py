"""The admin site itself: its titles, and the addresses that belong to no model."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect

from bookit.adminsite.csrf import https_page, needs_https


class Site(AdminSite):
    """Django's admin site, under our name."""

    site_header = "BookIt"
    site_title = "BookIt"
    index_title = "Administration"

    def get_urls(self) -> list[Any]:
        """Return the addresses, except for "view on site", because our rows have no such pages."""
        return [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form for signing in, or say why it could not work."""
        if needs_https(request):
            return https_page(request)
        return super().login(request, extra_context)

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponse:
        """Add a missing slash. Django does not do it, because paths of the API have no slash."""
        with_slash = request.get_full_path(force_append_slash=True)
        if not url.endswith("/"):
            return HttpResponsePermanentRedirect(with_slash)
        return super().catch_all_view(request, url)
