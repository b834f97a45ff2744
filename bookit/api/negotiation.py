"""The choice of the parser of a request and of the renderer of its response."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.http.request import MediaType
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class JSONNegotiation(DefaultContentNegotiation):
    """DRF's content negotiation, but the media type of a body must be exactly that of a parser.

    The Accept header is not parsed if it is missing, `*/*` or the first renderer's media type. DRF
    would also choose the first renderer, but more slowly.

    If there are several renderers, the weights in the header (`q`) decide. DRF ignores them.
    """

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        """Return the parser for the body's media type.

        Unlike in DRF, a `Content-Type` with a wildcard, such as `*/*`, matches no parser.
        """
        given = (request.content_type or "").partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == given), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> Any:
        """Return the renderer and media type that the Accept header asks for.

        Raises:
            NotAcceptable: no renderer matches the header.
        """
        renderers = [*renderers]
        first = renderers[0]
        if request.META.get("HTTP_ACCEPT", "*/*") in ("*/*", first.media_type):
            return first, first.media_type
        if len(renderers) > 1:
            renderers = [max(renderers, key=lambda each: self._weight(request, each))]
        return super().select_renderer(request, renderers, format_suffix)

    def _weight(self, request: Request, renderer: BaseRenderer) -> float:
        """Return the weight of the most specific range that matches (RFC 9110, section 12.5.1)."""
        matching = []
        for text in self.get_accept_list(request):
            # As in DRF, a malformed range matches nothing.
            with suppress(ValueError):
                accepted = MediaType(text)
                if accepted.match(renderer.media_type):
                    matching.append(accepted)
        best = max(matching, key=lambda each: each.specificity, default=None)
        return best.quality if best else 0


class FixedNegotiation(JSONNegotiation):
    """Always chooses the first renderer, because the path already names the format: `.ics`."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> Any:
        """Return the first renderer and its media type, whatever the Accept header asks for."""
        first = next(iter(renderers))
        return first, first.media_type
