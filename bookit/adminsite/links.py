"""Addresses of the admin site's lists and pages."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.templatetags.admin_urls import admin_urlname
from django.contrib.admin.utils import quote
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse


def list_of(model: type[Model], **filters: object) -> str:
    """Return the address of the list of a model, filtered by these parameters of its URL."""
    path = reverse(admin_urlname(model._meta, "changelist"))  # type: ignore[arg-type]
    return f"{path}?{urlencode(filters)}" if filters else path


def page_of(row: Any) -> str:
    """Return the address of the page of a row."""
    return reverse(admin_urlname(row._meta, "change"), args=[quote(row.pk)])  # type: ignore[arg-type]


def page_for(request: HttpRequest, row: Any) -> str:
    """Return the address of the page of a row; empty if the user may not see such a page.

    There is no page for `None`, nor for the account of a former user.
    """
    if row is None:
        return ""
    may_see = admin.site.get_model_admin(type(row)).has_view_permission(request, row)
    return page_of(row) if may_see else ""
