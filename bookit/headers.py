"""What browsers and caches are told about an answer."""

from django.http import HttpRequest, HttpResponse


def content_security_policy(**changes: str) -> str:
    """Return the policy of a page: it loads from this server alone and runs no inline script.

    Args:
        changes: directives that differ, with underscores in their names (`style_src`).
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
# procrastinate's list of jobs has style attributes. They cannot load or run anything.
ADMIN_POLICY = content_security_policy(style_src_attr="'unsafe-inline'")


def protect(request: HttpRequest, response: HttpResponse) -> None:
    """Add the policy of a page, and keep caches from storing what is not for everybody."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        is_admin = request.path_info.startswith("/admin/")
        policy = ADMIN_POLICY if is_admin else PAGE_POLICY
        response.headers.setdefault("Content-Security-Policy", policy)
    if not _is_public(request):
        response.headers["Cache-Control"] = "no-store"


def _is_public(request: HttpRequest) -> bool:
    """Return whether anybody may be given this answer: nothing but a path was sent to get it.

    A calendar file is personal without a header, because its path or its token says whose it is.
    """
    return (
        request.method in ("GET", "HEAD")
        and "HTTP_AUTHORIZATION" not in request.META
        and not request.path_info.startswith("/admin/")
        and not request.path_info.endswith(".ics")
    )
