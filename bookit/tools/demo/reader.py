"""Reads the town's files. A mistake becomes an error that names the file and the entry."""

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from zoneinfo import ZoneInfo

from django.core.exceptions import ValidationError

from bookit.times import zone
from bookit.tools.demo.dates import WeeklyHours, WeeklySessions, WeekTime, YearDay
from bookit.tools.demo.entries import BusinessEntry, Entry, PeopleEntry, SettingsEntry, TownError
from bookit.tools.demo.town import Town

PORTO_CLARO = Path(__file__).parent / "porto_claro"

AnyEntry = TypeVar("AnyEntry", bound=Entry)


def read_town(directory: Path = PORTO_CLARO) -> Town:
    """Return the town that the files in a directory describe.

    Raises:
        TownError: a file is missing or contains a mistake.
    """
    # Sorted by name, so that the same files always give the same town.
    businesses = sorted((directory / "businesses").glob("*.toml"))
    return Town(
        settings=_read(SettingsEntry, directory / "town.toml", "town.toml"),
        people=_read(PeopleEntry, directory / "people.toml", "people.toml"),
        businesses=tuple(
            _read(BusinessEntry, path, f"businesses/{path.name}") for path in businesses
        ),
    )


def _read(kind: type[AnyEntry], path: Path, source: str) -> AnyEntry:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TownError(source, f"This file is missing from {path.parent}.") from None
    except ValueError as error:
        raise TownError(source, f"This is not valid TOML: {error}.") from None
    return _entry(kind, table, source)


def _entry(kind: type[AnyEntry], table: Any, source: str) -> AnyEntry:
    """Turn a table into an entry. The keys are the fields of the entry's class except `source`."""
    if not isinstance(table, dict):
        raise TownError(source, "Write a table here, such as { key = 1 }.")
    keys = {field.name: field for field in fields(kind) if field.name != "source"}
    for key in table:
        if key not in keys:
            raise TownError(source, f"Unknown key {key}. The keys are: {', '.join(keys)}.")
    for key, field in keys.items():
        if key not in table and field.default is MISSING:
            raise TownError(source, f"The key {key} is missing.")
    types = get_type_hints(kind)
    values = {key: _value(types[key], value, f"{source}, {key}") for key, value in table.items()}
    try:
        return kind(source=source, **values)
    except ValidationError as error:
        mistakes = [f"{key}: {' '.join(texts)}" for key, texts in error.message_dict.items()]
        raise TownError(source, " ".join(mistakes)) from None
    except ValueError as error:
        raise TownError(source, str(error)) from None


def _value(kind: Any, value: Any, source: str) -> Any:
    """Convert a value from a file to the type that an entry's field declares."""
    if get_origin(kind) is UnionType:
        # For example `int | None`. TOML has no null, so an optional key is left out.
        return _value(get_args(kind)[0], value, source)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TownError(source, "Write a list here, in [square brackets].")
        return tuple(
            _value(get_args(kind)[0], item, f"{source} {number}{_label(item)}")
            for number, item in enumerate(value, 1)
        )
    if kind in TEXTS:
        return _parsed(kind, value, source)
    if kind in PLAIN:
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        raise TownError(source, f"Write {PLAIN[kind]} here.")
    return _entry(kind, value, source)


def _label(item: Any) -> str:
    """Return the label of a table in a list, for messages: its name or title."""
    name = isinstance(item, dict) and (item.get("name") or item.get("title"))
    return f" ({name})" if name else ""


def _parsed(kind: Any, value: Any, source: str) -> Any:
    if not isinstance(value, str):
        raise TownError(source, f"Write {PLAIN[str]} here.")
    try:
        return TEXTS[kind](value)
    except ValueError as error:
        raise TownError(source, str(error)) from None


def _amount(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError('Write an amount in quotes, such as "25.00".') from None


# The names of TOML's types in messages.
PLAIN: dict[Any, str] = {
    str: "text in quotes",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}

# The types whose values are written as text, and the functions that parse this text.
TEXTS: dict[Any, Callable[[str], Any]] = {
    Decimal: _amount,
    ZoneInfo: zone,
    WeeklyHours: WeeklyHours.parse,
    WeeklySessions: WeeklySessions.parse,
    WeekTime: WeekTime.parse,
    YearDay: YearDay.parse,
}
