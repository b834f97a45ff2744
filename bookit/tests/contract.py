"""Compares the responses that tests get with the OpenAPI document."""

import gzip
import json
import re
from functools import cache, lru_cache
from typing import Any

from django.http import HttpResponse
from django.urls import Resolver404

from bookit.errors import problems
from bookit.web import pages


def path_of(route: str) -> str:
    """Return the path of a Django route as the document writes it, for example `/services/{id}`."""
    return "/" + re.sub(r"<\w+:pk>", "{id}", re.sub(r"<\w+:(\w+_id|name)>", r"{\1}", route))


def resolve(document: dict[str, Any], part: Any) -> Any:
    """Return the part of the document to which `part` refers, or `part` if it is no reference."""
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every operation by method and path. References are resolved, except to schemas."""
    found = {}
    for path, methods in document["paths"].items():
        common = methods.get("parameters", [])
        for method, operation in methods.items():
            if method != "parameters":
                parameters = [*common, *operation.get("parameters", [])]
                security = operation.get("security", document["security"])
                found[f"{method.upper()} {path}"] = _without_references(
                    document, {**operation, "parameters": parameters, "security": security}
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
    return {
        label: {status: {*codes(response)} for status, response in operation["responses"].items()}
        for label, operation in documented_operations().items()
    }


def check(method: str, response: HttpResponse) -> None:
    """Check that the document lists the status and the error code of a response.

    Responses of operations that are not in the document are not checked.

    Raises:
        AssertionError: the document has the operation, but does not list them.
    """
    try:
        route = response.resolver_match.route  # type: ignore[attr-defined]
    except (AttributeError, Resolver404):
        return  # The path is unknown.
    label = f"{'GET' if method == 'HEAD' else method} {path_of(route)}"
    if label in documented():
        check_listed(label, response, has_body=method != "HEAD")


def check_listed(label: str, response: HttpResponse, *, has_body: bool = True) -> None:
    """Check that an operation of the document lists the status and the error code of a response.

    A 201 must also have the header `Location`, as the document says.

    Raises:
        AssertionError: the operation does not list them, or the header is missing.
    """
    statuses = documented()[label]
    if response.status_code == 304:
        return  # Each GET can be conditional. Only the description of the whole document says so.
    status = str(response.status_code)
    assert status in statuses, (
        f"The OpenAPI document does not list the status {status} for {label}. Add the code of the "
        f"error to `errors(...)` of the action. The response: {response.content[:500]!r}"
    )
    assert status != "201" or "Location" in response.headers, f"The 201 of {label} has no Location."
    if response.headers.get("Content-Type") == problems.CONTENT_TYPE and has_body:
        code = json.loads(content_of(response))["code"]
        assert code in statuses[status], (
            f"The OpenAPI document does not list the error {code} for {label}. Add it to "
            "`errors(...)` of the action."
        )


def content_of(response: HttpResponse) -> bytes:
    """Return the content of a response, decompressed."""
    is_compressed = response.headers.get("Content-Encoding") == "gzip"
    return gzip.decompress(response.content) if is_compressed else response.content


def check_form(label: str, response: HttpResponse) -> None:
    """Check the status, the error code and the media type of a response, and content that is JSON.

    Raises:
        AssertionError: the operation of the document does not describe this response.
    """
    check_listed(label, response)
    if response.status_code == 304:
        return
    validators = _validators(label, str(response.status_code))
    content = content_of(response)
    if not validators:
        assert content == b"", f"The document describes no content of {label}: {content[:500]!r}"
        return
    media_type = response.headers["Content-Type"].partition(";")[0]
    assert media_type in validators, (
        f"The document does not list the type {media_type} for {label}."
    )
    if media_type in ("text/calendar", "text/csv"):
        return
    errors = [error.message for error in validators[media_type].iter_errors(json.loads(content))]
    assert not errors, f"{label} {response.status_code}: {errors[0]}: {content[:500]!r}"


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, Any] = json.loads(pages.schema())
    return found


@lru_cache(maxsize=1)
def documented_operations() -> dict[str, dict[str, Any]]:
    """Return every operation of the document by method and path."""
    return operations(document())


@cache
def _validators(label: str, status: str) -> dict[str, Any]:
    """Return a validator for each media type of a response."""
    response = documented_operations()[label]["responses"][status]
    return {
        media_type: validator(document(), each.get("schema", {}))
        for media_type, each in response.get("content", {}).items()
    }


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Return a validator for a schema of the document."""
    # This import takes seconds, and most tests do not need it.
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    return Draft202012Validator(
        {**schema, "components": document["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
