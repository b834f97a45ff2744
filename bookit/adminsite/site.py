"""The admin site itself: its titles, and the URLs that belong to no model."""

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponsePermanentRedirect
from django.urls import reverse

from bookit.adminsite.csrf import https_page, needs_https
from bookit.adminsite.extensions import PAGES


class Site(AdminSite):
    """Django's admin site, under our name."""

    site_header = "BookIt"
    site_title = "BookIt"
    index_title = "Administration"

    def get_urls(self) -> list[Any]:
        """Add the URLs of `PAGES`. Leave out "view on site": our rows have no pages on the site."""
        urls = [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]
        return [*(url for pages in PAGES.values() for url in pages.urls), *urls]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the models by app, and then the links to `PAGES`, in the same form."""
        listed = super().get_app_list(request, app_label)
        for name, pages in PAGES.items():
            links = pages.links(request) if app_label is None else []
            if links:
                listed.append(
                    {
                        "name": pages.title,
                        "app_label": name,
                        "app_url": reverse(pages.address),
                        "has_module_perms": True,
                        "models": [
                            {
                                "name": text,
                                "object_name": f"{name}-{number}",
                                "admin_url": url,
                                "view_only": True,
                            }
                            for number, (text, url) in enumerate(links)
                        ],
                    }
                )
        return listed

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
