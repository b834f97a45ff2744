"""Finds the client of a request, and the browser that a User-Agent header names."""

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from accounts.sessions.services import Client
from bookit.api.addresses import client_address


def client_of(request: HttpRequest) -> Client:
    """Return the client that sent a request."""
    return Client(client_address(request), request.headers.get("User-Agent", ""))


# The part of a User-Agent header that identifies a browser or a system. The order matters: Edge and
# Opera also claim to be Chrome or Safari, Chrome (and Firefox on iOS) also claims to be Safari,
# iPhone and iPad also claim to be Mac OS X, and Android also claims to be Linux.
BROWSERS = {
    "Edg/": "Edge",
    "EdgA/": "Edge",
    "EdgiOS/": "Edge",
    "OPR/": "Opera",
    "Firefox/": "Firefox",
    "FxiOS/": "Firefox",
    "Chrome/": "Chrome",
    "CriOS/": "Chrome",
    "Safari/": "Safari",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}


def browser_of(user_agent: str) -> Any:
    """Return the browser and the system of a User-Agent header; empty for other programs."""
    browser = next((name for part, name in BROWSERS.items() if part in user_agent), "")
    system = next((name for part, name in SYSTEMS.items() if part in user_agent), "")
    if not browser or not system:
        return browser
    return _("%(browser)s on %(system)s") % {"browser": browser, "system": system}
