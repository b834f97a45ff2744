"""Pages that say why the admin site refused a form or a sign-in, and what can be done about it."""

import ipaddress
import re

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import REASON_NO_CSRF_COOKIE
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from bookit.adminsite import errors

USE_HTTPS = gettext_lazy("Open the admin site with https:// instead of http://.")
BEHIND_A_PROXY = gettext_lazy(
    "If a proxy in front of BookIt speaks HTTPS, make it send X-Forwarded-Proto, and set "
    "NUM_PROXIES to the number of proxies so that BookIt trusts the header. If the proxy cannot "
    "send the header, set PUBLIC_SCHEME=https."
)
ON_PURPOSE = gettext_lazy(
    "If you deliberately do without HTTPS on a private network, set ADMIN_OVER_HTTP=true. "
    "Passwords then travel unencrypted."
)


def needs_https(request: HttpRequest) -> bool:
    """Return whether a browser would drop the cookies of the admin site, which are for HTTPS only.

    Browsers keep such cookies only from HTTPS servers and from servers on their own machine, and
    they send `Sec-Fetch-Mode` only to these two kinds of servers. If a request has this header but
    does not seem to use HTTPS, it may come from a proxy that ends TLS and does not say so. The
    browser keeps the cookies in this case.
    """
    if not settings.SESSION_COOKIE_SECURE or request.is_secure():
        return False
    return "Sec-Fetch-Mode" not in request.headers and not _is_local(request.get_host())


def https_page(request: HttpRequest) -> HttpResponse:
    """Return the page that explains that signing in needs HTTPS."""
    text = _(
        "The admin site needs HTTPS, because browsers do not keep its cookies over plain HTTP."
    )
    return errors.page(request, 403, text, steps=[USE_HTTPS, BEHIND_A_PROXY, ON_PURPOSE])


def csrf_page(request: HttpRequest, reason: str) -> HttpResponse:
    """Return the page that explains why a form was refused, as far as the reason is known."""
    if reason == REASON_NO_CSRF_COOKIE:
        if needs_https(request):
            return https_page(request)
        text = _("Your browser did not send the cookie that belongs to this form.")
        return errors.page(
            request,
            403,
            text,
            steps=[_("Allow cookies for this site, then reload the page and try again.")],
        )
    origin = request.headers.get("Origin", "")
    is_origin_refused = reason.startswith("Origin checking failed")
    # An origin such as `null` cannot be in CSRF_TRUSTED_ORIGINS.
    if is_origin_refused and re.fullmatch(r"https?://[\w.:\[\]-]{1,255}", origin):
        return _other_origin(request, origin)
    text = _("The form was refused. Perhaps it was open for too long, or you have signed in again.")
    return errors.page(request, 403, text, steps=[_("Reload the page and try again.")])


def _other_origin(request: HttpRequest, origin: str) -> HttpResponse:
    here = f"{request.scheme}://{request.get_host()}"
    text = _(
        "Your browser sent this form from %(origin)s, but BookIt's own address seems to be "
        "%(here)s."
    ) % {"origin": origin, "here": here}
    steps = [_("Set CSRF_TRUSTED_ORIGINS=%(origin)s and restart BookIt.") % {"origin": origin}]
    if origin == f"https://{request.get_host()}":
        steps.insert(0, f"{BEHIND_A_PROXY} {_('Or:')}")
    return errors.page(request, 403, text, steps=steps)


def _is_local(host: str) -> bool:
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
