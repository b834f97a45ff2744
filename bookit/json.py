"""Writes JSON. The API and webhooks have this format of instants, money and ids."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

import orjson

OPTIONS = orjson.OPT_UTC_Z
MINUTE = timedelta(minutes=1)
# Etc/UTC and its aliases in the IANA time zone database.
UTC_NAMES = frozenset(
    {"UTC", "UCT", "Universal", "Zulu", "Etc/UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu"}
)


def dumps(content: object, tz: tzinfo = UTC) -> bytes:
    """Return `content` as JSON. Instants have the offset of `tz`.

    If `tz` is UTC, instants must be in UTC already, and their offset is `Z`.
    """
    if str(tz) in UTC_NAMES:
        return orjson.dumps(content, default=_plain, option=OPTIONS)
    return orjson.dumps(
        content, default=_plain_in(tz), option=OPTIONS | orjson.OPT_PASSTHROUGH_DATETIME
    )


def dumps_in_parts(content: Mapping[str, Any], tz: tzinfo = UTC) -> Iterator[bytes]:
    """Yield an object as JSON, in parts. A value that is an iterator of lists becomes one array."""
    yield b"{"
    for number, (name, value) in enumerate(content.items()):
        yield b"%s%s:" % (b"," if number else b"", dumps(name))
        if not isinstance(value, Iterator):
            yield dumps(value, tz)
            continue
        opening = b"["
        for rows in filter(None, value):
            yield opening + dumps(rows, tz)[1:-1]
            opening = b","
        yield b"]" if opening == b"," else b"[]"
    yield b"}"


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:zf}"  # z: write -0.00 as 0.00
    return str(value)  # for example a lazy translation


def _plain_in(tz: tzinfo) -> Callable[[object], str]:
    def plain(value: object) -> str:
        if not isinstance(value, datetime):
            return _plain(value)
        local = value.astimezone(tz)
        text = local.isoformat()
        if text[-6] != ":":
            return text
        # The offset has seconds, as in the time before zones had a standard time. RFC 3339 has no
        # such offsets, so the instant is written with an offset of whole minutes.
        offset = (local.utcoffset() or timedelta(0)) // MINUTE * MINUTE
        return value.astimezone(timezone(offset)).isoformat()

    return plain
