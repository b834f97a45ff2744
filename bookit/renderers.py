"""JSON out: the one place that knows how an instant, a sum of money and an id are written."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any

import orjson
from rest_framework.renderers import BaseRenderer

OPTIONS = orjson.OPT_UTC_Z


def dumps(content: object, tz: tzinfo = UTC) -> bytes:
    """Return `content` as JSON; instants carry the offset of `tz`, in UTC a `Z`."""
    if tz is UTC:
        return orjson.dumps(content, default=_plain, option=OPTIONS)
    return orjson.dumps(
        content, default=_plain_in(tz), option=OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME
    )


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:zf}"  # z: a sum of -0.00 is none
    # Lazy translations and their like.
    return str(value)


def _plain_in(tz: tzinfo) -> Callable[[object], str]:
    def plain(value: object) -> str:
        return value.astimezone(tz).isoformat() if isinstance(value, datetime) else _plain(value)

    return plain


class JSONRenderer(BaseRenderer):
    """Renders with orjson, which writes UUIDs and datetimes by itself."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body; empty where there is none."""
        if data is None:
            return b""
        request = renderer_context.get("request") if renderer_context else None
        return dumps(data, getattr(request, "zone", UTC))


class CalendarRenderer(BaseRenderer):
    """Hands on what is iCalendar already."""

    media_type = "text/calendar"
    format = "ics"
    charset = "utf-8"

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body; empty where there is none."""
        return b"" if data is None else data.encode()
