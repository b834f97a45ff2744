"""Response headers for browsers and caches."""

from django.http import HttpRequest, HttpResponse

from bookit.api.views import NO_TRANSFORM


def content_security_policy(**changes: str) -> str:
    """Return a policy with which a page loads files only from this server.

    The policy allows `data:` images, but no inline scripts or styles.

    Args:
        changes: directives to override or add, with underscores in their names (`style_src`).
    """
    directives = {
        "default_src": "'self'",
        "img_src": "'self' data:",
        "object_src": "'none'",
        "base_uri": "'none'",
        "form_action": "'self'",
        "frame_ancestors": "'none'",
        **changes,
    }
    return "; ".join(f"{name.replace('_', '-')} {value}" for name, value in directives.items())


PAGE_POLICY = content_security_policy()


# The request headers on which the JSON of a public URL depends. Times are in the zone of
# `Time-Zone`. With `Authorization`, users who may write metadata also get the metadata. A cache
# must not send one client a response that it has stored for another client.
VARY = "Authorization, Time-Zone"


def protect(request: HttpRequest, response: HttpResponse) -> None:
    """Add the headers for browsers and caches.

    Pages get a content security policy, non-public responses `no-store`, and public JSON `Vary`.
    """
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    if not _is_public(request):
        # Views whose responses contain secrets set `NO_TRANSFORM`, which proxies obey, too.
        is_secret = response.headers.get("Cache-Control") == NO_TRANSFORM
        response.headers["Cache-Control"] = "no-store, no-transform" if is_secret else "no-store"
    elif not kind.startswith("text/"):
        # JSON, or a 304, which has no content type. Pictures get the header, too: it is harmless.
        vary = response.headers.get("Vary")
        response.headers["Vary"] = f"{vary}, {VARY}" if vary else VARY


def _is_public(request: HttpRequest) -> bool:
    """Return whether anybody may see the response to a request. Caches may store public responses.

    Responses to GET and HEAD requests without an `Authorization` header are public, except in the
    admin site. Calendar files are not public either: the URL of a feed contains a token. Metrics
    change with every request, and not everybody may see them.
    """
    return (
        request.method in ("GET", "HEAD")
        and "HTTP_AUTHORIZATION" not in request.META
        and not request.path_info.startswith("/admin/")
        and not request.path_info.endswith(".ics")
        and request.path_info != "/metrics"
    )
