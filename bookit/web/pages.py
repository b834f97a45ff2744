"""Pages that are not about bookings: the documentation, the meaning of errors, and health."""

import re
from collections.abc import Callable
from functools import lru_cache
from threading import Lock
from typing import Any

from django.db import DatabaseError, InterfaceError, connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.response import Response
from rest_framework.views import APIView

from bookit.errors import pending, problems
from bookit.json import dumps
from bookit.web.headers import content_security_policy

DOCUMENTATION_POLICY = content_security_policy(
    style_src="'self' 'unsafe-inline'", worker_src="'self' blob:"
)


def read_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Accept only GET and HEAD; another method gets a 405, even without a valid CSRF token."""
    return csrf_exempt(require_safe(view))


class StyledMixin(APIView):
    """A page whose JavaScript bundle creates inline styles and web workers."""

    def finalize_response(self, *args: Any, **kwargs: Any) -> Response:
        """Add the policy that allows this."""
        response = super().finalize_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = DOCUMENTATION_POLICY
        return response


class DocsView(StyledMixin, SpectacularSwaggerSplitView):
    """Documentation of the API, to read and to try out."""

    http_method_names = ["get", "head"]

    url_name = "openapi"


class RedocView(StyledMixin, SpectacularRedocView):
    """Documentation of the API, to read."""

    http_method_names = ["get", "head"]

    url_name = "openapi"
    template_name = "bookit/redoc.html"


# The generator keeps its state in variables of its module, which two threads would share.
_generating = Lock()


@lru_cache(maxsize=1)
def schema() -> bytes:
    """Return the OpenAPI document, which is generated once because it depends only on the code."""
    return dumps(SchemaGenerator().get_schema(request=None, public=True))


@read_only
def openapi(request: HttpRequest) -> HttpResponse:
    """Answer with the OpenAPI document."""
    with _generating:
        document = schema()
    return HttpResponse(document, content_type="application/json")


@read_only
def errors(request: HttpRequest) -> HttpResponse:
    """List all errors."""
    return render(
        request,
        "bookit/errors.html",
        {"problems": [_in_html(problem) for problem in problems.catalogue().values()]},
    )


@read_only
def error(request: HttpRequest, code: str) -> HttpResponse:
    """Show what one error means."""
    problem = problems.catalogue().get(code)
    if problem is None:
        raise Http404
    return render(request, "bookit/errors.html", {"one": _in_html(problem)})


def _in_html(problem: problems.Problem) -> problems.Problem:
    """Return `problem` with the text between backticks marked up as code."""
    meaning = re.sub("`(.+?)`", r"<code>\1</code>", escape(problem.meaning))
    return problem._replace(meaning=mark_safe(meaning))  # noqa: S308 - escaped the line before


@read_only
def health(request: HttpRequest) -> HttpResponse:
    """Answer with 200 as long as the process is alive."""
    return HttpResponse(dumps({"status": "ok"}), content_type="application/json")


@read_only
def ready(request: HttpRequest) -> HttpResponse:
    """Answer with 200 if PostgreSQL answers and no migrations are pending, otherwise with 503."""
    try:
        if _pending_migrations():
            return problems.response(
                "service_unavailable", "Migrations are pending: run manage.py migrate."
            )
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return problems.response("service_unavailable", "PostgreSQL does not answer.")
    return HttpResponse(dumps({"status": "ready"}), content_type="application/json")


_migrated = False


def _pending_migrations() -> bool:
    # Checked only until none is pending: a running process does not get new migrations.
    global _migrated
    if not _migrated:
        _migrated = not pending.pending_migrations()
    return not _migrated
