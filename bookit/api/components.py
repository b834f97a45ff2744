"""The order of the OpenAPI document, and the parts that its operations share.

`share` replaces each part that the document repeats with a reference. Without it, each operation
would contain all of its errors, headers and common parameters, and the document would be four times
as large.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bookit.json import dumps

METHODS = ["get", "post", "patch", "delete"]
# A reference takes about this many bytes. Parts that are not longer stay where they are.
REFERENCE = 60

# A place in the document: an object or a list, and the key or the index of the part in it.
Place = tuple[Any, Any]


def sorting_key(endpoint: tuple[str, str, str, Any]) -> tuple[list[str], int]:
    """Return the sorting key of an endpoint of drf-spectacular.

    The segments of the path come first, so a collection comes before its items. The order of
    methods must be named here, because DRF keeps the methods of a view in a set, whose order
    differs from process to process.
    """
    path, _, method, _ = endpoint
    return _segments(path), METHODS.index(method.lower())


def in_order(paths: dict[str, Any]) -> dict[str, Any]:
    """Return the paths of a document in the same order as `sorting_key`."""
    return {path: paths[path] for path in sorted(paths, key=_segments)}


def _segments(path: str) -> list[str]:
    """Return the segments of a path, in which all path parameters are alike."""
    return re.sub("{.*?}", "{}", path).strip("/").split("/")


def share(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Move repeated parts of the document to its components, and refer to them."""
    operations = [
        operation
        for group in ("paths", "webhooks")
        for methods in result.get(group, {}).values()
        for operation in methods.values()
    ]
    # Responses come last: once their headers and examples are references, equal responses are
    # short, too.
    _share(result, "examples", [*_examples(operations)], lambda place: str(place[1]))
    _share(result, "headers", [*_headers(operations)], lambda place: str(place[1]))
    _share(result, "parameters", [*_parameters(operations)], lambda place: place[0][place[1]]["name"])
    _share(result, "responses", [*_problems(operations)], _name_of_problem)
    return result


def _share(
    result: dict[str, Any], kind: str, places: list[Place], name_of: Callable[[Place], str]
) -> None:
    """Replace the parts that are in several places with references to components."""
    written = [dumps(holder[key]) for holder, key in places]
    count = Counter(written)
    components: dict[str, Any] = result["components"].setdefault(kind, {})
    names: dict[bytes, str] = {}
    for place, text in zip(places, written, strict=True):
        if count[text] == 1 or len(text) <= REFERENCE:
            continue
        holder, key = place
        if text not in names:
            names[text] = _unused(re.sub(r"[^\w.-]", "_", name_of(place), flags=re.A), components)
            components[names[text]] = holder[key]
        holder[key] = {"$ref": f"#/components/{kind}/{names[text]}"}
    result["components"][kind] = dict(sorted(components.items()))


def _unused(name: str, components: dict[str, Any]) -> str:
    """Return `name`, followed by a number if another component has this name."""
    number, unused = 1, name
    while unused in components:
        number += 1
        unused = f"{name}_{number}"
    return unused


def _parameters(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for index in range(len(operation.get("parameters", []))):
            yield operation["parameters"], index


def _headers(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for response in operation["responses"].values():
            for name in response.get("headers", {}):
                yield response["headers"], name


def _examples(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in body.get("content", {}).values():
                for name in content.get("examples", {}):
                    yield content["examples"], name


def _problems(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for status, response in operation["responses"].items():
            if status.isdigit() and int(status) >= 400 and "content" in response:
                yield operation["responses"], status


def _name_of_problem(place: Place) -> str:
    """Return the codes of a response, joined: `not_authenticated_or_token_invalid`."""
    holder, status = place
    [content] = holder[status]["content"].values()
    return "_or_".join(content["examples"])
