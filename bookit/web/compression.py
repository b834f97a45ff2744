"""Compression of JSON with gzip.

A response that contains a secret is never compressed. Its size would show how much of it repeats
text that came with the request, and an attacker who can send many such requests could guess the
secret letter by letter (BREACH). Such a response has `Cache-Control: no-transform`, which also
keeps proxies from compressing it.
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
# A page of services takes 0.08 ms, and is a sixth of its size. The usual level, 6, would take 0.17
# ms for a tenth less; and 17 ms instead of 5 ms for a long list of free times. This is why Django's
# GZipMiddleware, which has a fixed level, is not used.
LEVEL = 1
TYPES = frozenset({"application/json", "application/problem+json"})


class GzipMiddleware:
    """Compresses JSON of more than a kilobyte for clients that accept it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        response = self.get_response(request)
        is_accepted = accepts_gzip(request.META.get("HTTP_ACCEPT_ENCODING", ""))
        if response.status_code == 304:
            patch_vary_headers(response, ["Accept-Encoding"])
            if is_accepted:
                _keep_tag(request, response)
        elif _is_compressible(request, response):
            patch_vary_headers(response, ["Accept-Encoding"])
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
        and not request.path_info.startswith("/admin/")  # Its pages contain CSRF tokens.
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


def _compress(response: HttpResponse) -> None:
    response.content = gzip.compress(response.content, LEVEL, mtime=0)
    response.headers["Content-Encoding"] = "gzip"
    # The bytes are others than those of the uncompressed response with the same tag.
    etag = response.headers.get("ETag", "")
    if etag.startswith('"'):
        response.headers["ETag"] = f"W/{etag}"


def _keep_tag(request: HttpRequest, response: HttpResponse) -> None:
    """Give a 304 the tag of the response that the client has (RFC 9110, section 15.4.5)."""
    etag = response.headers.get("ETag", "")
    if f"W/{etag}" in parse_etags(request.META.get("HTTP_IF_NONE_MATCH", "")):
        response.headers["ETag"] = f"W/{etag}"
