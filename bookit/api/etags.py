"""Conditional requests (RFC 9110, section 13): `ETag`, `If-None-Match` and `If-Match`.

The entity tag of a resource has two parts, `"version-digest"`: the version of the row (see
`bookit.database.versions`) and a digest of the response body. `If-None-Match` compares both parts,
because a representation also depends on the request (its time zone) and on other rows (the bookings
of a slot). `If-Match` compares only the version, because it asks whether the row has changed. If
the response to a GET has no version, for example a list, its tag is only the digest.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from django.http import HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import parse_etags
from rest_framework.request import Request
from xxhash import xxh3_64_hexdigest

from bookit.database.versions import CONSTRAINT, if_unchanged, version_of
from bookit.errors import CONSTRAINT_ERRORS, PreconditionFailed
from bookit.responses import Response

IF_MATCH = "If-Match"


class _View(Protocol):
    def current(self) -> Any:
        """Return the row that the path names."""


View = TypeVar("View", bound=_View)
Arguments = ParamSpec("Arguments")
Action = Callable[Concatenate[View, Request, Arguments], Response]

CONSTRAINT_ERRORS.add(CONSTRAINT)(PreconditionFailed)


def conditional(action: Action[View, Arguments]) -> Action[View, Arguments]:
    """Let an action support the header `If-Match`. The action changes the row that the path names.

    The version is compared twice. The first comparison refuses an outdated request before the
    action checks anything. The second is part of the write, so only one of two concurrent requests
    succeeds.
    """

    @wraps(action)
    def run(
        self: View, request: Request, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Response:
        if "HTTP_IF_MATCH" not in request.META:
            return action(self, request, *args, **kwargs)
        row = self.current()
        if not _contains_version(request.META["HTTP_IF_MATCH"], row.updated_at):
            raise PreconditionFailed
        return if_unchanged(row, lambda: action(self, request, *args, **kwargs))

    run.takes = IF_MATCH  # type: ignore[attr-defined]
    return run


def _contains_version(header: str, updated_at: datetime) -> bool:
    """Return whether `If-Match` is `*`, or contains an entity tag with this version.

    RFC 9110 requires strong tags in `If-Match`. Compression by BookIt or a proxy makes the tags of
    responses weak, but does not change the version, so BookIt also accepts weak tags.
    """
    tags = parse_etags(header)
    versions = {tag.removeprefix("W/").strip('"').partition("-")[0] for tag in tags}
    return tags == ["*"] or f"{version_of(updated_at):x}" in versions


def tagged(response: Response, request: Request) -> HttpResponse:
    """Add the entity tag to a rendered response, or return a 304 if the client has the same tag."""
    data: Any = response.data
    is_read = request.method in ("GET", "HEAD")
    updated_at = data.get("updated_at") if isinstance(data, dict) else None
    # A response that issues tokens is not the representation of the user.
    if (updated_at is None and not is_read) or (isinstance(data, dict) and "access_token" in data):
        return response
    if "ETag" in response.headers:
        return response  # The view has added the tag and, for a GET, compared it.
    response.headers["ETag"] = entity_tag(response.content, updated_at)
    if not is_read or "HTTP_IF_NONE_MATCH" not in request.META:
        return response
    etag = response.headers["ETag"]
    return get_conditional_response(request._request, etag=etag, response=response) or response


def entity_tag(content: bytes, updated_at: datetime | None) -> str:
    """Return the entity tag of a response body, with the version of its row, if it has one."""
    # The digest only has to show changes. It need not resist forgery, so the hash is a fast one.
    # SHA-256 would take a tenth of the time of a response with thousands of free times.
    digest = xxh3_64_hexdigest(content)
    version = f"{version_of(updated_at):x}-" if updated_at else ""
    return f'"{version}{digest}"'
