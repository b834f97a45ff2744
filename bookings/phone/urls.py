"""URLs of a call, below those of bookings in the admin site."""

from typing import Any

from django.contrib import admin
from django.urls import URLPattern, path

from bookings.phone import views


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
