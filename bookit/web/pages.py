"""What is not about bookings: documentation, the meaning of errors, and health."""

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
    """Let GET and HEAD alone pass; a wrong method is that, whatever cookies it brings."""
    return csrf_exempt(require_safe(view))


class StyledMixin(APIView):
    """A page whose bundle writes its styles itself, and works in threads of its own making."""

    def finalize_response(self, *args: Any, **kwargs: Any) -> Response:
        """Add the policy that lets it."""
        response = super().finalize_response(*args, **kwargs)
        response.headers["Content-Security-Policy"] = DOCUMENTATION_POLICY
        return response


class DocsView(StyledMixin, SpectacularSwaggerSplitView):
    """The API, to read and to try."""

    http_method_names = ["get", "head"]

    url_name = "openapi"


class RedocView(StyledMixin, SpectacularRedocView):
    """The API, to read."""

    http_method_names = ["get", "head"]

    url_name = "openapi"
    template_name = "bookit/redoc.html"


# The generator keeps what it finds in variables of its module, which two threads would share.
_generating = Lock()


@lru_cache(maxsize=1)
def schema() -> bytes:
    """Return the OpenAPI document; made once, because it follows from the code alone."""
    return dumps(SchemaGenerator().get_schema(request=None, public=True))


@read_only
def openapi(request: HttpRequest) -> HttpResponse:
    """Answer with the OpenAPI document."""
    with _generating:
        document = schema()
    return HttpResponse(document, content_type="application/json")


@read_only
def errors(request: HttpRequest) -> HttpResponse:
    """Show every error there is."""
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
    """Return `problem` with what stands between backticks set as code."""
    meaning = re.sub("`(.+?)`", r"<code>\1</code>", escape(problem.meaning))
    return problem._replace(meaning=mark_safe(meaning))  # noqa: S308 - escaped the line before


@read_only
def health(request: HttpRequest) -> HttpResponse:
    """Answer as long as the process lives."""
    return HttpResponse(dumps({"status": "ok"}), content_type="application/json")


@read_only
def ready(request: HttpRequest) -> HttpResponse:
    """Answer whether requests can be served: PostgreSQL answers and its tables are up to date."""
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
    # Asked until the answer is no: this process's own migrations cannot become more.
    global _migrated
    if not _migrated:
        _migrated = not pending.pending_migrations()
    return not _migrated
