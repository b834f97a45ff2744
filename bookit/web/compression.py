"""Compression of JSON with gzip.

A response that contains a secret is never compressed. The compressed size would show whether the
secret repeats text from the request, so an attacker who can send many requests could guess the
secret letter by letter (BREACH). A response with a secret has `Cache-Control: no-transform`, which
also keeps proxies from compressing it.
"""

import gzip
import re
from collections.abc import Callable
from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.http import parse_etags

from bookit.api.views import NO_TRANSFORM

# Smaller responses fit into one packet.
MIN_SIZE = 1024
# At level 1, compression reduces a page of services to a sixth of its size in 0.08 ms. At level 6,
# the result would be 10 % smaller, but would take 0.17 ms, and a long list of free times would take
# 17 ms instead of 5 ms. Django's GZipMiddleware is not used, because it always uses level 6.
LEVEL = 1
TYPES = frozenset({"application/json", "application/problem+json"})


class GzipMiddleware:
    """Compresses JSON of more than a kilobyte for clients that accept gzip."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        response = self.get_response(request)
        is_accepted = accepts_gzip(request.META.get("HTTP_ACCEPT_ENCODING", ""))
        if response.status_code == 304:
            _vary(response)
            if is_accepted:
                _keep_tag(request, response)
        elif _is_compressible(request, response):
            _vary(response)
            if is_accepted:
                _compress(response)
        return response


def _is_compressible(request: HttpRequest, response: HttpResponse) -> bool:
    return (
        response.headers.get("Content-Type", "").partition(";")[0] in TYPES
        and not response.streaming
        and len(response.content) > MIN_SIZE
        and "Content-Encoding" not in response.headers
        and response.headers.get("Cache-Control") != NO_TRANSFORM
        # In the admin site, HTML contains CSRF tokens, and some JSON contains HTML.
        and not request.path_info.startswith("/admin/")
    )


@lru_cache(maxsize=64)
def accepts_gzip(header: str) -> bool:
    """Return whether the header `Accept-Encoding` allows gzip."""
    accepted = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        is_zero = re.fullmatch(r"\s*q\s*=\s*0?\.?0*\s*", weight) is not None
        accepted[name.strip()] = not is_zero
    return accepted.get("gzip", accepted.get("*", False))


def _vary(response: HttpResponse) -> None:
    """Tell caches that the response depends on `Accept-Encoding`."""
    if "Vary" in response.headers:
        # This call takes 10 microseconds, so it is used only if the header exists.
        patch_vary_headers(response, ["Accept-Encoding"])
    else:
        response.headers["Vary"] = "Accept-Encoding"


def _compress(response: HttpResponse) -> None:
    response.content = gzip.compress(response.content, LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    # A strong tag promises equal bytes. The uncompressed response has this strong tag already, so
    # the compressed response gets a weak tag.
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        response.headers["ETag"] = f"W/{etag}"


def _keep_tag(request: HttpRequest, response: HttpResponse) -> None:
    """Give a 304 the tag of the response that the client has stored (RFC 9110, section 15.4.5)."""
    etag = response.headers.get("ETag", "")
    if f"W/{etag}" in parse_etags(request.META.get("HTTP_IF_NONE_MATCH", "")):
        response.headers["ETag"] = f"W/{etag}"
