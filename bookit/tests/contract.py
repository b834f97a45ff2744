"""Compares the responses that tests get with the OpenAPI document."""

import gzip
import json
import re
from functools import lru_cache
from typing import Any

from django.http import HttpResponse
from django.urls import Resolver404

from bookit.errors import problems
from bookit.web import pages


def path_of(route: str) -> str:
    """Return the path of a route of Django as the document writes it: `/services/{id}`."""
    return "/" + re.sub(r"<\w+:pk>", "{id}", re.sub(r"<\w+:(\w+_id)>", r"{\1}", route))


def resolve(document: dict[str, Any], part: Any) -> Any:
    """Return the part of the document to which a reference leads."""
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every operation by method and path, without references outside of schemas."""
    found = {}
    for path, methods in document["paths"].items():
        common = methods.get("parameters", [])
        for method, operation in methods.items():
            if method != "parameters":
                parameters = [*common, *operation.get("parameters", [])]
                found[f"{method.upper()} {path}"] = _without_references(
                    document, {**operation, "parameters": parameters}
                )
    return found


def _without_references(document: dict[str, Any], part: Any) -> Any:
    if isinstance(part, list):
        return [_without_references(document, each) for each in part]
    if not isinstance(part, dict) or part.get("$ref", "").startswith("#/components/schemas/"):
        return part
    return {
        name: _without_references(document, each) for name, each in resolve(document, part).items()
    }


def codes(response: dict[str, Any]) -> list[str]:
    """Return the error codes that a response of the document names."""
    problem = problems.CONTENT_TYPE in response.get("content", {})
    return re.findall("`(.+?)`", response["description"]) if problem else []


@lru_cache(maxsize=1)
def documented() -> dict[str, dict[str, set[str]]]:
    """Return the statuses of every operation, and the error codes of each status."""
    document = json.loads(pages.schema())
    return {
        label: {status: {*codes(response)} for status, response in operation["responses"].items()}
        for label, operation in operations(document).items()
    }


def check(method: str, response: HttpResponse) -> None:
    """Check that the document lists the status of this response for its operation, and its code.

    Raises:
        AssertionError: it does not.
    """
    try:
        route = response.resolver_match.route  # type: ignore[attr-defined]
    except (AttributeError, Resolver404):
        return  # The path is unknown.
    label = f"{'GET' if method == 'HEAD' else method} {path_of(route)}"
    statuses = documented().get(label)
    if statuses is None:
        return
    if response.status_code == 304:
        return  # Each GET can be conditional. The description of the document says so once.
    status = str(response.status_code)
    assert status in statuses, (
        f"The OpenAPI document does not list the status {status} for {label}. Add the code of the "
        f"error to `errors(...)` of the action. The response: {response.content[:500]!r}"
    )
    if response.headers.get("Content-Type") == problems.CONTENT_TYPE and method != "HEAD":
        is_packed = response.headers.get("Content-Encoding") == "gzip"
        content = gzip.decompress(response.content) if is_packed else response.content
        code = json.loads(content)["code"]
        assert code in statuses[status], (
            f"The OpenAPI document does not list the error {code} for {label}. Add it to "
            "`errors(...)` of the action."
        )
