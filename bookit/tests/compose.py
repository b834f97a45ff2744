"""Reads the compose files as Docker Compose does, without Docker."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from bookit.runtime.startup import BASE_DIR

# Matches `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?message}`. A default can contain another
# variable.
VARIABLE = re.compile(
    r"\$\$|\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>(?:[^{}]|\$\{[^{}]*\})*))?\}"
)


class Required(Exception):
    """A required variable is not set, or empty."""


class Loader(yaml.SafeLoader):
    """YAML with Compose's tag `!override`."""


def _list(loader: Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


Loader.add_constructor("!override", _list)


def read(name: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of a compose file, with `variables` filled in as from `.env`."""
    content: Any = yaml.load((BASE_DIR / name).read_text(), Loader)
    filled: dict[str, Any] = _fill(content, variables)
    return filled


def _fill(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, variables) for inner in value]
    return _interpolate(value, variables) if isinstance(value, str) else value


def _interpolate(text: str, variables: Mapping[str, str]) -> str:
    def replacement(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        if found["kind"] == "?":
            raise Required(f"{name} {found['rest']}")
        return _interpolate(found["rest"] or "", variables)

    return VARIABLE.sub(replacement, text)
