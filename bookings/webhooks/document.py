"""Describes the messages to webhooks in the OpenAPI document, one entry for each type."""

from typing import Any

from drf_spectacular.drainage import get_override

from bookings.events import REPORTED_TYPES
from bookings.extensions import EVENT_DATA_SERIALIZERS
from bookings.models import BookingEvent
from bookings.payloads import BookingAtEventSerializer
from bookings.webhooks.serializers import event_serializers
from bookings.webhooks.services import TEST

HEADERS = {
    "webhook-id": "The id of the message. It is the same in every attempt to deliver it.",
    "webhook-timestamp": "When this attempt was made, in seconds since 1970.",
    "webhook-signature": "The signatures, as Standard Webhooks specifies.",
}

AT = "2026-11-21T09:05:00Z"


def add_webhooks(
    result: dict[str, Any], generator: Any, request: Any, public: bool
) -> dict[str, Any]:
    """Describe the messages to webhooks in the OpenAPI document `result`. Return the document.

    A message is an event without its id, or a test.
    """
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
        )
        # All messages about bookings share one schema. Its example is a confirmed booking.
        if message in schemas and kind is not BookingEvent.Type.CONFIRMED:
            continue
        schemas[message] = {
            **_without_id(schemas[event]),
            "examples": [
                {
                    "type": kind.value,
                    "timestamp": AT,
                    "data": get_override(data, "examples")[0].value,
                }
            ],
        }
    schemas["TestMessage"] = {
        "type": "object",
        "description": "A test, which an admin sends with `POST /webhooks/{id}/test`.",
        "properties": {
            "type": {"type": "string", "enum": [TEST]},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"type": "object", "maxProperties": 0},
        },
        "required": ["data", "timestamp", "type"],
        "examples": [{"type": TEST, "timestamp": AT, "data": {}}],
    }
    result["webhooks"][TEST] = _message(TEST, "Test", {"$ref": "#/components/schemas/TestMessage"})
    result["components"]["schemas"] = dict(sorted(schemas.items()))
    return result


def _without_id(event: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an event without its id. The id of a message is in its header."""
    return {
        **event,
        "properties": {name: each for name, each in event["properties"].items() if name != "id"},
        "required": [name for name in event["required"] if name != "id"],
    }


def _message(kind: str, summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the operation that receives the messages of a type."""
    return {
        "post": {
            "operationId": f"on_{kind.replace('.', '_')}",
            "summary": summary,
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
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
            "responses": {
                "2XX": {
                    "description": "The message has arrived. The response's body has no effect."
                },
                "default": {
                    "description": "The attempt failed. It is repeated for a day, except after 410."
                },
            },
        }
    }
