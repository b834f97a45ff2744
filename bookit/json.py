"""Writes JSON: the one place that knows how an instant, a sum of money and an id are written."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

import orjson

OPTIONS = orjson.OPT_UTC_Z


def dumps(content: object, tz: tzinfo = UTC) -> bytes:
    """Return `content` as JSON; instants carry the offset of `tz`, in UTC a `Z`."""
    if str(tz) == "UTC":  # Also the IANA zone of that name.
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
