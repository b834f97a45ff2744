"""Renderers of responses."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from rest_framework.renderers import BaseRenderer

from bookit.json import dumps


class JSONRenderer(BaseRenderer):
    """Renders with `bookit.json`. Times have the offset of the request's zone, by default UTC."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body, which is empty if there is no content."""
        if data is None:
            return b""
        request = renderer_context.get("request") if renderer_context else None
        return dumps(data, getattr(request, "zone", UTC))


class CalendarRenderer(BaseRenderer):
    """Encodes text that is already in the iCalendar format."""

    media_type = "text/calendar"
    format = "ics"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body, which is empty if there is no content."""
        return b"" if data is None else data.encode()
