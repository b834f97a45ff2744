"""The parts of the OpenAPI document that drf-spectacular cannot derive by itself."""

from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from enum import Enum
from inspect import getdoc
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.http import HttpRequest, HttpResponse
from drf_spectacular.contrib.django_filters import DjangoFilterExtension
from drf_spectacular.extensions import (
    OpenApiSerializerExtension,
)
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema_serializer
from rest_framework.fields import Field
from rest_framework.serializers import ModelSerializer, Serializer

from bookit.api.components import in_order
from bookit.api.etags import IF_MATCH
from bookit.api.expand import EXPAND, Expansion
from bookit.errors import problems

# The header that lets a client send a POST again; see `bookit.idempotency`.
IDEMPOTENCY_KEY = "Idempotency-Key"
# The codes of the errors that a request header can cause, by header.
ERRORS_OF_HEADERS = {
    IDEMPOTENCY_KEY: ["idempotency_in_progress", "idempotency_key_reused"],
    IF_MATCH: ["precondition_failed"],
}

# The extension that lists the codes of the errors of an operation.
ERRORS = "x-errors"
# The extension that lists the properties of a serializer that are not in every response.
SOMETIMES = "x-sometimes"
# The extension that lists the properties that `expand` adds to a schema.
EXPANDS = "x-expands"
# The extension that lists the properties that a body may contain although they are ignored.
IGNORED = "x-ignored"
# The extension of operations without a rate limit. Their responses have no rate limit headers.
UNLIMITED = "x-unlimited"

# By path: the operations that drf-spectacular does not find, because their views are not DRF views.
PAGES: dict[str, dict[str, Any]] = {}

# Headers of responses. Operations without a rate limit have only `X-Request-ID`.
HEADERS = {
    "X-Request-ID": {
        "description": "The id of the request. It is on every log line of the request.",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": (
            'The limit that applies: `"user";q=600;w=60` means 600 requests in 60 seconds.'
        ),
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": (
            'What is left of the limit: `"user";r=599;t=42` means that 599 requests remain, and '
            "that another one becomes available in 42 seconds."
        ),
        "schema": {"type": "string"},
    },
}


def errors(*codes: str) -> dict[str, list[str]]:
    """Return the extension that lists errors of an operation in addition to `_common_codes`."""
    return {ERRORS: list(codes)}


def example(
    name: str, value: dict[str, Any], *, response: dict[str, Any] | None = None, **options: Any
) -> Any:
    """Return a decorator that documents `value` as an example of a serializer.

    Without `response`, `value` is the only example, and `options` are passed to `OpenApiExample`.
    With `response`, `value` is the example of a request, and `value` with `response` is the example
    of a response.
    """
    if response is None:
        examples = [OpenApiExample(name, value=value, **options)]
    else:
        examples = [
            OpenApiExample(name, value=value, request_only=True),
            OpenApiExample(name, value={**value, **response}, response_only=True),
        ]
    return extend_schema_serializer(examples=examples)


def page(
    path: str, *, summary: str, body: dict[str, Any], codes: Collection[str], limited: bool = True
) -> Callable[[Callable[[HttpRequest], HttpResponse]], Callable[[HttpRequest], HttpResponse]]:
    """Return a decorator that documents a Django view that returns `body` if it succeeds.

    The view needs no authentication. The docstring of the view becomes the description. `codes`
    are the codes of all errors of the view. `limited` says whether the view has a rate limit.
    """

    def document(
        view: Callable[[HttpRequest], HttpResponse],
    ) -> Callable[[HttpRequest], HttpResponse]:
        properties = {name: {"type": "string", "enum": [value]} for name, value in body.items()}
        schema = {"type": "object", "properties": properties, "required": [*properties]}
        examples = {"OK": {"value": body}}
        PAGES[path] = {
            "operationId": f"{path.strip('/').replace('/', '_')}_show",
            "description": getdoc(view),
            "summary": summary,
            "tags": ["Operations"],
            "security": [{}],
            "responses": {
                "200": {
                    "description": "",
                    "content": {"application/json": {"schema": schema, "examples": examples}},
                }
            },
            ERRORS: [*codes],
            UNLIMITED: not limited,
        }
        return view

    return document


class StrictExtension(OpenApiSerializerExtension):
    """Describes which fields a body may have, and their defaults."""

    target_class = "bookit.api.serializers.StrictMixin"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        """Return the schema. The schema of a request body also has defaults and ignored fields."""
        schema: dict[str, Any] = auto_schema._map_serializer(
            self.target, direction, bypass_extensions=True
        )
        if direction != "request":
            return schema
        properties = schema.get("properties", {})
        schema[IGNORED] = sorted({*self.target.fields, *self.target.ignored} - properties.keys())
        for name, described in properties.items():
            if self.target.partial:
                # A generated client would send the defaults in a PATCH, and so change fields.
                described.pop("default", None)
            elif (default := _default(self.target, self.target.fields[name])) is not None:
                described["default"] = default
        return schema


def _default(serializer: Serializer[Any], field: Field[Any, Any, Any, Any]) -> Any:
    """Return the value that a column gets if a body leaves out the field.

    Return None if the column has no default. Also return None if the default is an empty object:
    without a default, all requests can share one schema of the metadata.
    """
    if field.required or not isinstance(serializer, ModelSerializer):
        return None
    meta: Any = serializer.Meta
    try:
        column: Any = meta.model._meta.get_field(str(field.source))
    except FieldDoesNotExist:
        return None
    value = column.get_default() if column.concrete and column.has_default() else None
    if value == {}:
        return None
    return value.value if isinstance(value, Enum) else value


class FilterExtension(DjangoFilterExtension):
    """Describes the parameters of filters."""

    target_class = "bookit.api.filters.FilterBackend"
    # The base class is an extension for the same filters. Its priority is 0.
    priority = 1

    def resolve_filter_field(self, *args: Any) -> list[dict[str, Any]]:
        """Return the parameters of a filter. Their choices have the type of the parameter.

        The choices of a filter are strings even if the parameter is an integer, and drf-spectacular
        writes them as they are. A generated client could then not send the number 5.
        """
        parameters: list[dict[str, Any]] = super().resolve_filter_field(*args)
        [*_, filter_field] = args
        for parameter in parameters:
            schema = parameter["schema"]
            if schema.get("type") == "boolean":
                schema.pop("enum", None)
            elif schema.get("type") == "integer" and "enum" in schema:
                schema["enum"] = [int(choice) for choice in schema["enum"]]
            if schema.get("type") == "string" and filter_field.extra.get("max_length"):
                schema["maxLength"] = filter_field.extra["max_length"]
            if hasattr(filter_field, "default"):
                schema["default"] = filter_field.default
            text = parameter.pop("description", None)
            if text := _without_plain_choices(text or ""):
                parameter["description"] = text
        return parameters


def _without_plain_choices(text: str) -> str:
    """Return `text` without its list of choices if each label only repeats the choice's name."""
    start, list_of_choices, rest = text.partition("* `")
    choices = (list_of_choices + rest).split("\n")
    pairs = [each.partition(" - ") for each in choices]
    plain = all(name == f"* `{label.lower().replace(' ', '_')}`" for name, _, label in pairs)
    return start.rstrip() if plain else text


class Schema(AutoSchema):
    """Adds the parameters, bodies and errors that drf-spectacular does not find in a view."""

    def get_operation_id(self) -> str:
        """Return the operation id, which names a method of generated clients: `bookings_create`."""
        words = [word for word in self.path.split("/") if word and not word.startswith("{")]
        verb = {"list": "list", "retrieve": "show", "create": "create", "destroy": "delete"}
        action = getattr(self.view, "action", "")
        last = verb.get(action) or {"get": "show", "patch": "change"}.get(self.method.lower(), "")
        return "_".join(word for word in [*words, last] if word).replace("-", "_")

    def _get_request_body(self, *args: Any, **kwargs: Any) -> Any:
        """Return the body of the operation. Even a DELETE can have one, for example a password."""
        takes_body = getattr(self.view, "action", "") in getattr(self.view, "input_classes", {})
        if self.method != "DELETE" or not takes_body:
            return super()._get_request_body(*args, **kwargs)
        self.method = "POST"  # drf-spectacular describes no body for a DELETE.
        try:
            return super()._get_request_body(*args, **kwargs)
        finally:
            self.method = "DELETE"

    def get_override_parameters(self) -> list[Any]:
        """Return the parameters that all operations take, and the others that this one takes."""
        parameters = [
            OpenApiParameter(
                "tz", str, description="The IANA time zone of the times in the response."
            ),
            OpenApiParameter(
                "Time-Zone",
                str,
                OpenApiParameter.HEADER,
                description="The same as `tz`, which takes precedence.",
            ),
            OpenApiParameter(
                "X-Request-ID",
                str,
                OpenApiParameter.HEADER,
                description=(
                    "1 to 128 characters of `A-Z a-z 0-9 . _ -`. The response and the "
                    "log repeat it."
                ),
            ),
        ]
        if self._takes(IDEMPOTENCY_KEY):
            parameters.append(
                OpenApiParameter(
                    IDEMPOTENCY_KEY,
                    str,
                    OpenApiParameter.HEADER,
                    description=(
                        "1 to 255 characters that are different for each request. If you send the "
                        "same request again within 24 hours, you get the first response, and "
                        "nothing is created twice."
                    ),
                )
            )
        expandable = self._expandable()
        if expandable:
            parameters.append(
                OpenApiParameter(
                    EXPAND,
                    str,
                    enum=sorted(expandable),
                    many=True,
                    explode=False,
                    description=(
                        "Comma-separated resources that are added next to their ids. `user` is "
                        "added only for the provider, admins and staff."
                        if "user" in expandable
                        else "Comma-separated resources that are added next to their ids."
                    ),
                )
            )
        if self._takes(IF_MATCH):
            parameters.append(
                OpenApiParameter(
                    IF_MATCH,
                    str,
                    OpenApiParameter.HEADER,
                    description=(
                        "The `ETag` of the resource as you read it. If the resource has changed "
                        "since then, the response is a 412."
                    ),
                )
            )
        if getattr(self.view, "action", None) != "list":
            return parameters
        fields = getattr(self.view, "ordering_fields", {})
        if fields:
            names = sorted(fields)
            parameters.append(
                OpenApiParameter(
                    "ordering",
                    str,
                    description="Comma-separated fields, with `-` in front for descending order: "
                    + ", ".join(names)
                    + ".",
                )
            )
        return parameters

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return the operation, with the errors of its headers and the properties of `expand`."""
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is not None and "requestBody" in operation:
            # A client should send at least an empty object, although a request without a body
            # counts as an empty object.
            # drf-spectacular marks a body as required only if one of its properties is required.
            operation["requestBody"]["required"] = True
        for header, codes in ERRORS_OF_HEADERS.items():
            if operation is not None and self._takes(header):
                operation[ERRORS] = [*operation.get(ERRORS, []), *codes]
        expandable = self._expandable()
        if operation is not None and expandable:
            operation[EXPANDS] = self._expanded_properties(expandable)
        return operation

    def _expandable(self) -> Mapping[str, Expansion]:
        """Return the resources that `expand` can add to the response of this operation, by name."""
        reads = getattr(self.view, "action", None) in ("list", "retrieve")
        return getattr(self.view, "expandable", {}) if reads else {}

    def _expanded_properties(
        self, expandable: Mapping[str, Expansion]
    ) -> dict[str, dict[str, Any]]:
        """Return the properties that `expand` adds, by the name of the schema that gets them."""
        serializer: Any = self.get_response_serializers()
        fields = serializer.fields
        properties = {}
        for name, expansion in expandable.items():
            resource = self.resolve_serializer(expansion.serializer, "response").ref
            properties[name] = {"description": f"Only with `expand={name}`."} | (
                {"oneOf": [resource, {"type": "null"}]}
                if fields[expansion.key].allow_null
                else resource
            )
        return {self.resolve_serializer(serializer, "response").name: properties}

    def _takes(self, header: str) -> bool:
        takes: Any = getattr(self.view, "takes", None)
        return takes is not None and bool(takes(header, self.method.lower()))


def add_common_parts(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Add `PAGES`, the schema `Problem`, and the errors and headers of all responses.

    Also mark which properties are required, and which bodies allow no other properties.
    """
    catalogue = problems.catalogue()
    components = result["components"]
    for name, schema in components["schemas"].items():
        if "enum" in schema and not _without_plain_choices(schema.get("description", "")):
            schema.pop("description", None)
        # Responses have all properties that are not in SOMETIMES. Pages and bodies may have fewer.
        is_complete = not name.endswith("Request") and not name.startswith("Paginated")
        if "properties" in schema and is_complete:
            schema["required"] = sorted(schema["properties"].keys() - schema.pop(SOMETIMES, []))
            # No request has this schema, so no property has to be marked as read-only.
            schema["properties"] = {
                name: _without_read_only(each) for name, each in schema["properties"].items()
            }
        resource = name.removeprefix("Patched").removesuffix("Request")
        if name != resource and _has_same_description(components["schemas"].get(resource), schema):
            del schema["description"]
        if (ignored := schema.pop(IGNORED, None)) is not None:
            # Only request bodies are closed. A later version may add properties to responses.
            schema.setdefault("properties", {}).update(
                {name: {"readOnly": True} for name in ignored}
            )
            schema["additionalProperties"] = False
    components["schemas"]["Problem"] = {
        "type": "object",
        "description": (
            "An error in the format of RFC 9457. `code` is stable; `/errors/{code}` explains it."
        ),
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": list(catalogue)},
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "code", "message"],
                    "properties": {
                        "field": {"type": "string"},
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                    },
                },
            },
            "alternatives": {
                "type": "array",
                "description": (
                    "If another time would resolve the conflict: free times, the nearest first."
                ),
                "items": {
                    "type": "object",
                    "required": ["start_time", "end_time", "slot_id"],
                    "properties": {
                        "start_time": {"type": "string", "format": "date-time"},
                        "end_time": {"type": "string", "format": "date-time"},
                        "slot_id": {"type": ["string", "null"], "format": "uuid"},
                    },
                },
            },
            "request_id": {"type": ["string", "null"]},
        },
        "examples": [
            {
                "type": "/errors/validation_error",
                "title": "Bad Request",
                "status": 400,
                "detail": catalogue["validation_error"].meaning,
                "code": "validation_error",
                "errors": [
                    {"field": "name", "code": "required", "message": "This field is required."}
                ],
                "request_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
            }
        ],
    }
    result["paths"] |= {path: {"get": deepcopy(operation)} for path, operation in PAGES.items()}
    result["paths"] = in_order(result["paths"])
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            codes = set(operation.pop(ERRORS, []))
            for name, properties in operation.pop(EXPANDS, {}).items():
                components["schemas"][name]["properties"].update(properties)
            if path not in PAGES:
                codes |= _common_codes(path, method, operation)
            for code in sorted(codes):
                _add_problem(operation, catalogue[code])
            unlimited = operation.pop(UNLIMITED, False)
            headers = {"X-Request-ID": HEADERS["X-Request-ID"]} if unlimited else HEADERS
            for response in operation["responses"].values():
                response.setdefault("headers", {}).update(headers)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            if "201" in operation["responses"]:
                operation["responses"]["201"]["headers"]["Location"] = {
                    "description": "The address of the new resource.",
                    "schema": {"type": "string", "format": "uri-reference"},
                }
            if "422" in operation["responses"]:  # Only an idempotency key can cause a 422.
                _created(operation)["headers"]["Idempotent-Replayed"] = {
                    "description": "`true` if this is the response to an earlier request.",
                    "schema": {"type": "string", "enum": ["true"]},
                }
    return result


def _has_same_description(resource: dict[str, Any] | None, body: dict[str, Any]) -> bool:
    """Return whether the schema of a resource has the same description as the schema of a body."""
    return resource is not None and resource.get("description") == body.get("description", "")


def _without_read_only(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the property without `readOnly`, and without `allOf` if only a reference remains."""
    rest = {name: each for name, each in schema.items() if name != "readOnly"}
    return rest["allOf"][0] if rest.keys() == {"allOf"} and len(rest["allOf"]) == 1 else rest


def _created(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the response to a request that succeeded, which has the status 201 or 202."""
    responses: dict[str, Any] = operation["responses"]
    return next(responses[status] for status in ("201", "202") if status in responses)


def _common_codes(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    codes = {"validation_error", "not_acceptable", "throttled", "internal_error"}
    codes.add("service_unavailable")
    if path.endswith(".ics"):
        codes.remove("not_acceptable")  # The path, not `Accept`, names the format.
    security = operation.get("security", [])
    if any(security):
        codes.add("token_invalid")
        if {} not in security:
            codes |= {"not_authenticated", "permission_denied"}
    if "{" in path:
        codes.add("not_found")
    if "requestBody" in operation or method == "post":
        # A POST without a documented body accepts an empty object.
        codes |= {"parse_error", "payload_too_large", "unsupported_media_type"}
        codes.add("request_timeout")
    return codes


def _add_problem(operation: dict[str, Any], problem: problems.Problem) -> None:
    response = operation["responses"].setdefault(
        str(problem.status),
        {
            "description": "",
            "content": {
                problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        },
    )
    response["description"] = ", ".join(
        filter(None, [response["description"], f"`{problem.code}`"])
    )
    if problem.status in (429, 503):
        response.setdefault("headers", {})["Retry-After"] = {
            "description": "The number of seconds to wait.",
            "schema": {"type": "integer"},
        }
    if problem.status == 401:
        response.setdefault("headers", {})["WWW-Authenticate"] = {"schema": {"type": "string"}}
