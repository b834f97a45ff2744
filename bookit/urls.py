"""All URLs of BookIt."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from bookit.metrics.views import metrics
from bookit.web import pages

urlpatterns = [
    # Django tries these patterns in order, so the most frequently requested URLs come first.
    path("", include("catalog.urls")),
    path("", include("bookings.urls")),
    path("", include("reviews.urls")),
    path("", include("accounts.urls")),
    path("", pages.read_only(RedirectView.as_view(url="/docs"))),
    path("errors", pages.errors),
    path("errors/<slug:code>", pages.error),
    path("health", pages.health),
    path("health/ready", pages.ready),
    path("metrics", metrics),
    path("docs", pages.DocsView.as_view()),
    path("redoc", pages.RedocView.as_view()),
    path("openapi.json", pages.openapi, name="openapi"),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("admin/", admin.site.urls),
]

# The example page is for developers. In production, a request for it gets a 404.
if not settings.PRODUCTION:
    urlpatterns.append(path("example", pages.example))

handler400 = "bookit.web.middleware.bad_request"
handler403 = "bookit.web.middleware.forbidden"
handler404 = "bookit.web.middleware.not_found"
handler500 = "bookit.web.middleware.server_error"
