"""Writes JSON. Only this module defines the format of instants, money and ids."""

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from decimal import Decimal

import orjson

OPTIONS = orjson.OPT_UTC_Z


def dumps(content: object, tz: tzinfo = UTC) -> bytes:
    """Return `content` as JSON; instants have the offset of `tz`, written as `Z` for UTC."""
    if str(tz) == "UTC":  # This includes the IANA zone of that name.
        return orjson.dumps(content, default=_plain, option=OPTIONS)
    return orjson.dumps(
        content, default=_plain_in(tz), option=OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME
    )


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:zf}"  # z: write -0.00 as 0.00
    # For example lazy translations.
    return str(value)


def _plain_in(tz: tzinfo) -> Callable[[object], str]:
    def plain(value: object) -> str:
        return value.astimezone(tz).isoformat() if isinstance(value, datetime) else _plain(value)

    return plain
