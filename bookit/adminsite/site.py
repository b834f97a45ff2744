"""The admin site itself: its titles, and the URLs that belong to no model."""

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
        """Return the URLs without "view on site", because our rows have no pages on the site."""
        return [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the sign-in form, or a page that says why signing in cannot work."""
        if needs_https(request):
            return https_page(request)
        return super().login(request, extra_context)

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponse:
        """Add a missing slash. `APPEND_SLASH` is off, because paths of the API have no slash."""
        with_slash = request.get_full_path(force_append_slash=True)
        if not url.endswith("/"):
            return HttpResponsePermanentRedirect(with_slash)
        return super().catch_all_view(request, url)
