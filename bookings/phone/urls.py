"""URLs of a call, below those of bookings in the admin site."""

from typing import Any

from django.contrib import admin
from django.urls import URLPattern, path
from django.utils.translation import gettext_lazy as _

from bookings.phone import views
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.menu import Menu

PAGES.add("call")(
    Page(
        Menu.DIARY,
        _("Book for a customer"),
        "admin:bookings_booking_add",
        "bookings.add_booking",
        is_button=True,
    )
)


def urls(site: admin.AdminSite) -> list[URLPattern]:
    """Return the URLs; each view needs somebody who is signed in to `site`."""
    named: dict[str, Any] = {
        "customers": views.customers,
        "times": views.times,
        "hold": views.hold,
        "release": views.release,
    }
    return [
        path(f"phone/{name}/", site.admin_view(view), name=f"bookings_phone_{name}")
        for name, view in named.items()
    ]
