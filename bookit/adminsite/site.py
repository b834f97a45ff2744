"""The admin site itself: its titles, its menu, and the URLs that belong to no model."""

import logging
from contextlib import suppress
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.admin.views.autocomplete import AutocompleteJsonView
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponsePermanentRedirect,
    HttpResponseRedirect,
)
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from bookit.adminsite.csrf import https_page, needs_https
from bookit.adminsite.extensions import HOME_CARDS, PAGES, Glance, HomeCard
from bookit.adminsite.menu import Menu
from bookit.database.citus.nodes import is_server_down
from bookit.errors.handler import UNAVAILABLE
from bookit.times import zone

logger = logging.getLogger(__name__)


class Choices(AutocompleteJsonView):
    """Finds rows for an autocomplete field.

    Django requires the permission to view the rows. So staff who may, for example, publish slots
    but not view services could not choose the service of a slot.
    """

    def process_request(self, request: HttpRequest) -> Any:
        """Return what Django reads from the parameters of the URL.

        Raises:
            PermissionDenied: the parameters name no field of a form. For a relation from another
                model, Django itself would later raise an `AttributeError`.
        """
        found = super().process_request(request)
        _term, _model_admin, field, _name = found
        if not field.concrete:
            raise PermissionDenied
        return found

    def has_perm(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may choose one of the rows."""
        return self.model_admin.may_choose(request)  # type: ignore[attr-defined]


class Site(AdminSite):
    """Django's admin site, with a home page that shows the state of the business."""

    site_header = "BookIt"
    site_title = "BookIt"
    index_title = _("Home")
    # Without a URL, Django hides the link "View site". The root of the server shows the
    # documentation of the API, which is not a site to view.
    site_url = None
    # The class of the view with which users change their own password. `accounts.admin` sets it.
    password_change_view: Any = None

    def get_urls(self) -> list[Any]:
        """Return the URLs of `PAGES` and Django's URLs, except "view on site".

        Our rows have no pages outside the admin site.
        """
        urls = [each for each in super().get_urls() if getattr(each, "name", "") != "view_on_site"]
        ours = [
            URLPattern(url.pattern, self.admin_view(view), url.default_args, url.name)
            for page in PAGES.values()
            for url in page.urls
            for view in [page.guarded(url.callback)]
        ]
        return [*ours, *urls]

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Wrap a view of the site: its times are in the time zone of the user.

        A form that is sent after its user was signed out leads to the sign-in page, with a message.
        """
        checked = super().admin_view(view, cacheable)

        @wraps(checked)
        def in_zone_of_user(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if _is_sent_after_sign_out(request):
                return _ask_to_sign_in(request)
            with timezone.override(zone(getattr(request.user, "timezone", "UTC"))):
                response = checked(request, *args, **kwargs)
                # Otherwise, Django would render the page after the zone has been reset.
                if hasattr(response, "render"):
                    response.render()
                return response

        return in_zone_of_user

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Return the pages and models, grouped as in the menu, or the models of one app."""
        apps = super().get_app_list(request, app_label)
        if app_label is not None:
            return apps
        parts: dict[str, list[Any]] = {part: [] for part in Menu}
        for name, page in PAGES.items():
            if page.is_for(request.user):
                link = {"name": page.title, "object_name": name, "admin_url": page.path}
                parts[page.menu].append({**link, "add_url": None, "view_only": True})
        models = [model for app in apps for model in app["models"]]
        for model in models:
            options: Any = self.get_model_admin(model["model"])
            model["menu"], model["name"] = options.menu, options.list_title or model["name"]
        for model in sorted(models, key=lambda model: str(model["name"]).lower()):
            if model["menu"]:
                parts[model["menu"]].append(model)
        links = [link for part in parts.values() for link in part]
        # The path of a page can begin with the path of another page, so the longest match wins.
        paths = [link["admin_url"] or "" for link in links]
        here = max((each for each in paths if request.path.startswith(each)), key=len, default="")
        for link in links:
            link["is_current"] = bool(here) and link["admin_url"] == here
        return [
            {
                "name": Menu(part).label,
                "app_label": part,
                "app_url": "",
                "has_module_perms": True,
                "models": links,
            }
            for part, links in parts.items()
            if links
        ]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the cards that the user may see, or make the change that a card's form asks for."""
        if request.method == "POST":
            self._act(request)
            return HttpResponseRedirect(request.path)
        user: Any = request.user
        glance = Glance(user, timezone.now(), zone(user.timezone))
        buttons = [page for page in PAGES.values() if page.is_button and page.is_for(user)]
        home = {"cards": self._cards(request, glance), "glance": glance, "buttons": buttons}
        return super().index(request, {**home, **(extra_context or {})})

    def _cards(self, request: HttpRequest, glance: Glance) -> list[dict[str, Any]]:
        """Return the cards that the user may see.

        If a server of a distributed database is down, cards that need it are left out, and a
        message says that the database is not available. The other cards and the menu do not need
        the server.
        """
        cards, failure = [], None
        for name, card in sorted(HOME_CARDS.items(), key=lambda item: (item[1].place, item[0])):
            try:
                shown = card.read(glance) if card.is_for(glance.user) else None
            except DatabaseError as error:
                if not is_server_down(error):
                    raise
                logger.error("%s: the card cannot be read: %s", name, str(error).partition("\n")[0])
                shown, failure = None, UNAVAILABLE[None]
            if shown is not None:
                cards.append({"card": card, "name": name, "shown": shown})
        if failure:
            messages.error(request, failure)
        return cards

    def _act(self, request: HttpRequest) -> None:
        card: HomeCard | None = HOME_CARDS.get(request.POST.get("card", ""))
        if card is None or card.act is None:
            raise Http404
        if not request.user.has_perm(card.act_permission):
            raise PermissionDenied
        card.act(request, timezone.now())

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the sign-in form, or a page that says why signing in cannot work."""
        if needs_https(request):
            return https_page(request)
        return super().login(request, extra_context)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        """Show the form with which users change their own password, or change it."""
        request.current_app = self.name
        view = self.password_change_view.as_view(
            success_url=reverse("admin:password_change_done", current_app=self.name),
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return view(request)

    def autocomplete_view(self, request: HttpRequest) -> Any:
        """Return the rows that an autocomplete field finds."""
        return Choices.as_view(admin_site=self)(request)

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponse:
        """Redirect to the path with a slash at its end, if the slash is missing.

        `APPEND_SLASH` is off, because paths of the API do not end in a slash.
        """
        with_slash = request.get_full_path(force_append_slash=True)
        if not url.endswith("/"):
            return HttpResponsePermanentRedirect(with_slash)
        return super().catch_all_view(request, url)


def _is_sent_after_sign_out(request: HttpRequest) -> bool:
    """Return whether a form was sent after the session of its user had ended."""
    is_form = request.method == "POST" and request.path != reverse("admin:logout")
    return is_form and request.user.is_anonymous


def _ask_to_sign_in(request: HttpRequest) -> HttpResponse:
    """Redirect to the sign-in page, with a message that the form was not processed.

    After signing in, users are on the page of the form again, if the request names it (`Referer`).
    The address to which the form was sent, which is used otherwise, may not accept GET.
    """
    text = gettext("You were signed out, so nothing was changed. Sign in, and try again.")
    messages.warning(request, text)
    here = request.get_full_path()
    with suppress(ValueError):  # The header need not be a URL.
        page = urlsplit(request.headers.get("Referer", ""))
        if page.path.startswith(reverse("admin:index")):
            here = page._replace(scheme="", netloc="").geturl()
    return redirect_to_login(here, reverse("admin:login"))
