"""Error pages of the admin site, which shows HTML pages instead of problem documents."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext_lazy as _

from bookit.errors.problems import TITLES
from bookit.request_id import request_id

WORDS = {
    400: _("The address or the form is not valid."),
    403: _("You do not have permission to do this."),
    404: _(
        "There is nothing at this address. If it was the page of a row, somebody may have "
        "deleted the row."
    ),
    405: _(
        "This address does not accept this kind of request. Go back and use the button on the page."
    ),
    413: _("The form is larger than 1 MiB."),
    429: _("There were too many requests from your address. Try again in a minute."),
    500: _("This is a bug in BookIt. It has been logged with the request id below."),
    503: _("The database cannot be reached or is too busy. Try again in a few seconds."),
}


def is_admin_page(request: HttpRequest) -> bool:
    """Return whether a request is for a page of the admin site."""
    return request.path_info == "/admin" or request.path_info.startswith("/admin/")


def page(
    request: HttpRequest, status: int, text: str = "", *, steps: Sequence[Any] | None = None
) -> HttpResponse:
    """Return a page that says what is wrong, without using the database or the session.

    Args:
        steps: what the reader can do, one sentence for each step.
    """
    related = _list_of(request)
    is_list = related is not None and request.path_info == related["url"]
    if is_list and status == 403 and request.method == "GET":
        related = None  # The user may not see the list, so do not link to it.
    # Render without the request, because context processors would read from the database. Messages
    # wait for the next page.
    html = render_to_string(
        "bookit/admin_error.html",
        {
            "site_header": admin.site.site_header,
            "site_title": admin.site.site_title,
            "title": TITLES.get(status, HTTPStatus(status).phrase),
            "text": text or WORDS.get(status, ""),
            "steps": steps,
            "request_id": request_id.get(),
            "list": related,
        },
    )
    response = HttpResponse(html, status=status)
    if status == 503:
        response["Retry-After"] = "2"
    return response


def _list_of(request: HttpRequest) -> dict[str, str] | None:
    """Return the URL and the name of the list to which the requested page belongs, if any."""
    found = re.match(r"/admin/(\w+)/(\w+)/", request.path_info)
    if found is None:
        return None
    for model in apps.get_models():
        meta = model._meta
        names = (meta.app_label, meta.model_name)
        if names == found.groups() and admin.site.is_registered(model):
            return {"url": found[0], "name": str(meta.verbose_name_plural)}
    return None
