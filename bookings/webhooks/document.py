"""The messages to webhooks in the OpenAPI document: one entry of `webhooks` for each type."""

from typing import Any

from drf_spectacular.drainage import get_override

from bookings.events import REPORTED_TYPES
from bookings.extensions import EVENT_DATA_SERIALIZERS
from bookings.payloads import BookingAtEventSerializer
from bookings.webhooks.serializers import event_serializers
from bookings.webhooks.services import TEST

HEADERS = {
    "webhook-id": "The id of the message. It is the same in every attempt to deliver the message.",
    "webhook-timestamp": "When this attempt was made, in seconds since 1970.",
    "webhook-signature": "The signatures of the message, as Standard Webhooks specifies.",
}


def add_webhooks(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Describe the messages that BookIt sends to webhooks. They are events without their ids."""
    schemas = result["components"]["schemas"]
    result["webhooks"] = {}
    for kind in REPORTED_TYPES:
        event = event_serializers()[kind].__name__.removesuffix("Serializer")
        message = event.replace("Event", "Message")
        data = EVENT_DATA_SERIALIZERS.get(kind, BookingAtEventSerializer)
        result["webhooks"][kind.value] = _message(
            kind.value,
            f"{event.removesuffix('Event')}: {kind.label.lower()}",
            {
                "allOf": [
                    {"$ref": f"#/components/schemas/{message}"},
                    {"type": "object", "properties": {"type": {"const": kind.value}}},
                ]
            },
            # The messages of one schema look alike, so one example is enough.
            None if message in schemas else get_override(data, "examples")[0].value,
        )
        schemas[message] = _without_id(schemas[event])
    schemas["TestMessage"] = {
        "type": "object",
        "description": "A test, which an admin sends with `POST /webhooks/{id}/test`.",
        "properties": {
            "type": {"type": "string", "enum": [TEST]},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"type": "object", "maxProperties": 0},
        },
        "required": ["data", "timestamp", "type"],
    }
    result["webhooks"][TEST] = _message(
        TEST, "Test", {"$ref": "#/components/schemas/TestMessage"}, {}
    )
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    return result


def _without_id(event: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a message: the header `webhook-id` has the id of the message."""
    return {
        **event,
        "properties": {name: each for name, each in event["properties"].items() if name != "id"},
        "required": [name for name in event["required"] if name != "id"],
    }


def _message(
    kind: str, summary: str, schema: dict[str, Any], data: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the operation that receives the messages of a type, with `data` as an example."""
    content: dict[str, Any] = {"schema": schema}
    if data is not None:
        body = {"type": kind, "timestamp": "2026-11-21T09:05:00Z", "data": data}
        content["examples"] = {kind: {"value": body}}
    return {
        "post": {
            "operationId": f"on_{kind.replace('.', '_')}",
            "summary": summary,
            "description": (
                "Sent to each active webhook that names this type. The signature proves that the "
                "message comes from BookIt."
            ),
            "tags": ["Webhooks"],
            "security": [{}],
            "parameters": [
                {
                    "name": name,
                    "in": "header",
                    "required": True,
                    "description": text,
                    "schema": {"type": "string"},
                }
                for name, text in HEADERS.items()
            ],
            "requestBody": {"required": True, "content": {"application/json": content}},
            "responses": {
                "2XX": {"description": "The message has arrived. The body is not read."},
                "default": {"description": "The attempt failed, and is repeated for a day."},
            },
        }
    }
