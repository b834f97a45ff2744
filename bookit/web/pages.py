"""The documentation of the API, an example of a client, pages about errors, and health checks."""

import re
from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from threading import Lock
from typing import Any

from django.db import DatabaseError, InterfaceError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import translation
from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.response import Response
from rest_framework.views import APIView

from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.menu import Menu
from bookit.api.components import Generator
from bookit.api.schema import page
from bookit.errors import pending, problems
from bookit.json import dumps
from bookit.languages import SOURCE
from bookit.web.headers import content_security_policy

DOCUMENTATION_POLICY = content_security_policy(
    style_src="'self' 'unsafe-inline'", worker_src="'self' blob:"
)

PAGES.add("docs")(Page(Menu.SYSTEM, _("API documentation"), "/docs"))


def read_only(view: Callable[..., Any]) -> Callable[..., HttpResponse]:
    """Make a view accept only GET and HEAD. Any other method gets a 405, not a CSRF error."""
    return csrf_exempt(require_safe(view))


class StyledMixin(APIView):
    """A page whose JavaScript bundle creates inline styles and, in ReDoc, web workers."""

    def finalize_response(self, *args: Any, **kwargs: Any) -> Response:
        """Add the content security policy that allows inline styles and web workers."""
        response = super().finalize_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = DOCUMENTATION_POLICY
        return response


class DocsView(StyledMixin, SpectacularSwaggerSplitView):
    """The documentation of the API as Swagger UI, in which endpoints can be tried out."""

    http_method_names = ["get", "head"]

    url_name = "openapi"


class RedocView(StyledMixin, SpectacularRedocView):
    """The documentation of the API as ReDoc, which is for reading only."""

    http_method_names = ["get", "head"]

    url_name = "openapi"
    template_name = "bookit/redoc.html"


# Only one thread at a time may run the generator, because it keeps its state in module variables.
_generating = Lock()


@lru_cache(maxsize=1)
def schema() -> bytes:
    """Return the OpenAPI document, which is generated once because it never changes."""
    # The document is in English, even if the first request for it asks for another language.
    with translation.override(SOURCE):
        return dumps(Generator().get_schema(request=None, public=True))


@read_only
def openapi(request: HttpRequest) -> HttpResponse:
    """Return the OpenAPI document."""
    with _generating:
        document = schema()
    return HttpResponse(document, content_type="application/json")


@read_only
def example(request: HttpRequest) -> HttpResponse:
    """Return the example of a client: a small page on which visitors book.

    The content security policy of the page allows requests to this server. It also allows the
    page's own script and styles, by their hashes.
    """
    response = render(request, "bookit/example.html")
    html = response.content.decode()
    response.headers["Content-Security-Policy"] = content_security_policy(
        script_src=_hash_of("script", html), style_src=_hash_of("style", html)
    )
    return response


def _hash_of(element: str, html: str) -> str:
    """Return a CSP source expression that allows only the content of this element of the page."""
    [content] = re.findall(f"<{element}[^>]*>(.*?)</{element}>", html, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


@read_only
def errors(request: HttpRequest) -> HttpResponse:
    """Return a page that lists all errors."""
    return render(
        request,
        "bookit/errors.html",
        {"problems": [_in_html(problem) for problem in problems.catalogue().values()]},
    )


@read_only
def error(request: HttpRequest, code: str) -> HttpResponse:
    """Return a page that says what one error means."""
    problem = problems.catalogue().get(code)
    if problem is None:
        raise Http404
    return render(request, "bookit/errors.html", {"one": _in_html(problem)})


def _in_html(problem: problems.Problem) -> problems.Problem:
    """Return `problem` with the text between backticks marked up as code."""
    meaning = re.sub("`(.+?)`", r"<code>\1</code>", escape(str(problem.meaning)))
    return problem._replace(meaning=mark_safe(meaning))  # noqa: S308 - the line above escapes the text


@page(
    "/health",
    summary="Check whether the process is alive",
    body={"status": "ok"},
    codes=["request_timeout", "internal_error", "service_unavailable"],
    limited=False,
)
@read_only
def health(request: HttpRequest) -> HttpResponse:
    """Return 200 as long as the process is alive."""
    return HttpResponse(dumps({"status": "ok"}), content_type="application/json")


@page(
    "/health/ready",
    summary="Check whether the service can work",
    body={"status": "ready"},
    codes=["request_timeout", "throttled", "internal_error", "service_unavailable"],
)
@read_only
def ready(request: HttpRequest) -> HttpResponse:
    """Return 200 if PostgreSQL responds and no migrations are pending, and 503 otherwise."""
    try:
        if _pending_migrations():
            return problems.response(
                "service_unavailable", gettext("Migrations are pending: run manage.py migrate.")
            )
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return problems.response("service_unavailable", gettext("PostgreSQL does not answer."))
    return HttpResponse(dumps({"status": "ready"}), content_type="application/json")


_migrated = False


def _pending_migrations() -> bool:
    # Once no migrations are pending, there is no further check, because a running process does not
    # get new migrations.
    global _migrated
    if not _migrated:
        _migrated = not pending.pending_migrations()
    return not _migrated
