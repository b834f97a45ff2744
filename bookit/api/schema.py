"""The parts of the OpenAPI document that drf-spectacular cannot derive by itself."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema_serializer

from bookit.errors import problems

ERRORS = "x-errors"
# The extension that lists the properties of a serializer that are not in every response.
SOMETIMES = "x-sometimes"

# Headers of every response.
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
            'What is left of the limit: `"user";r=599;t=42` means 599 requests in the '
            "next 42 seconds."
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

    With `response`, `value` is an example of a request. The example of the response contains both.
    """
    if response is None:
        examples = [OpenApiExample(name, value=value, **options)]
    else:
        examples = [
            OpenApiExample(name, value=value, request_only=True),
            OpenApiExample(name, value={**value, **response}, response_only=True),
        ]
    return extend_schema_serializer(examples=examples)


class BearerScheme(OpenApiAuthenticationExtension):
    """Describes the access token in the OpenAPI document."""

    target_class = "accounts.authentication.BearerAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, Any]:
        """Return the security scheme."""
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": (
                "The `access_token` from `POST /auth/login`, or an API key (`bk_...`) from "
                "`POST /me/api-keys`."
            ),
        }


class Schema(AutoSchema):
    """Adds the parameters that all operations have, and `ordering` to lists."""

    def get_operation_id(self) -> str:
        """Return the operation id, which names a method of generated clients: `bookings_create`."""
        words = [word for word in self.path.split("/") if word and not word.startswith("{")]
        verb = {"list": "list", "retrieve": "show", "create": "create", "destroy": "delete"}
        action = getattr(self.view, "action", "")
        last = verb.get(action) or {"get": "show", "patch": "change"}.get(self.method.lower(), "")
        return "_".join(word for word in [*words, last] if word).replace("-", "_")

    def get_override_parameters(self) -> list[Any]:
        """Return the parameters that every operation has; a list also has `ordering`."""
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
        if self._takes_idempotency_key():
            parameters.append(
                OpenApiParameter(
                    "Idempotency-Key",
                    str,
                    OpenApiParameter.HEADER,
                    description=(
                        "1 to 255 characters that are different for each request. If you send the "
                        "same request again within 24 hours, you get the first response, and "
                        "nothing is created twice."
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
        """Return the operation, with the errors that an idempotency key can cause."""
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is not None and self._takes_idempotency_key():
            codes = ["idempotency_in_progress", "idempotency_key_reused"]
            operation[ERRORS] = [*operation.get(ERRORS, []), *codes]
        return operation

    def _takes_idempotency_key(self) -> bool:
        takes: Any = getattr(self.view, "takes_idempotency_key", None)
        return takes is not None and bool(takes(self.method.lower()))


def add_common_parts(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Add the errors that operations share, and the headers of every response."""
    catalogue = problems.catalogue()
    components = result["components"]
    for name, schema in components["schemas"].items():
        # Responses are always complete; only request bodies may leave properties out.
        if "properties" in schema and not name.endswith("Request") and name[:9] != "Paginated":
            schema["required"] = sorted(schema["properties"].keys() - schema.pop(SOMETIMES, []))
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
    }
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            codes = _common_codes(path, method, operation) | set(operation.pop(ERRORS, []))
            for code in sorted(codes):
                _add_problem(operation, catalogue[code])
            for response in operation["responses"].values():
                response.setdefault("headers", {}).update(HEADERS)
            operation["responses"] = dict(sorted(operation["responses"].items()))
            if "201" in operation["responses"]:
                operation["responses"]["201"]["headers"]["Location"] = {
                    "description": "The address of the new resource.",
                    "schema": {"type": "string", "format": "uri-reference"},
                }
            if "422" in operation["responses"]:
                _created(operation)["headers"]["Idempotent-Replayed"] = {
                    "description": "`true` if this is the response to an earlier request.",
                    "schema": {"type": "string", "enum": ["true"]},
                }
    return result


def _created(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the response to a request that succeeded."""
    responses: dict[str, Any] = operation["responses"]
    return next(responses[status] for status in ("201", "202") if status in responses)


def _common_codes(path: str, method: str, operation: dict[str, Any]) -> set[str]:
    codes = {"validation_error", "not_acceptable", "throttled", "internal_error"}
    codes.add("service_unavailable")
    security = operation.get("security", [])
    if any(security):
        codes.add("token_invalid")
        if {} not in security:
            codes |= {"not_authenticated", "permission_denied"}
    if "{" in path:
        codes.add("not_found")
    if "requestBody" in operation:
        codes |= {"parse_error", "payload_too_large", "unsupported_media_type"}
    return codes


def _add_problem(operation: dict[str, Any], problem: problems.Problem) -> None:
    response = operation["responses"].setdefault(
        str(problem.status),
        {
            "description": "",
            "content": {
                problems.CONTENT_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {},
                }
            },
        },
    )
    example: dict[str, Any] = {
        "type": f"/errors/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.meaning,
        "code": problem.code,
        "request_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    }
    if problem.code == "validation_error":
        example["errors"] = [
            {"field": "name", "code": "required", "message": "This field is required."}
        ]
    response["description"] = ", ".join(
        filter(None, [response["description"], f"`{problem.code}`"])
    )
    response["content"][problems.CONTENT_TYPE]["examples"][problem.code] = {"value": example}
    if problem.status in (429, 503):
        response.setdefault("headers", {})["Retry-After"] = {
            "description": "The number of seconds to wait.",
            "schema": {"type": "integer"},
        }
    if problem.status == 401:
        response.setdefault("headers", {})["WWW-Authenticate"] = {"schema": {"type": "string"}}
