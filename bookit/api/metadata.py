"""The field of requests and responses that contains metadata; see `bookit.database.metadata`."""

from typing import Any

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.plumbing import append_meta
from rest_framework import serializers

from bookit.database.metadata import MAX_KEY_LENGTH, MAX_KEYS, MAX_VALUE_LENGTH, TOO_MANY_KEYS

# A request can replace all keys at once: it removes MAX_KEYS old keys and adds MAX_KEYS new keys.
MAX_CHANGES = 2 * MAX_KEYS


class MetadataField(serializers.Field[Any, Any, Any, Any]):
    """An object whose values are texts, for integrators.

    In a request, null removes a key. Keys that the request does not contain stay as they are.
    """

    default_error_messages = {
        "not_an_object": _("This must be a JSON object whose values are strings."),
        "too_many_keys": TOO_MANY_KEYS,
        "too_many_changes": format_lazy(
            _("At most {most} keys can be changed at once."), most=MAX_CHANGES
        ),
        "key_length": format_lazy(
            _("Each key must have 1 to {most} characters."), most=MAX_KEY_LENGTH
        ),
        "null_characters": _("Null characters are not allowed."),
        "not_a_text": _("The value must be a string, or null to remove the key."),
        "too_long": format_lazy(
            _("The value can have at most {most} characters."), most=MAX_VALUE_LENGTH
        ),
    }

    def __init__(self, **options: Any) -> None:
        text = (
            f"Up to {MAX_KEYS} keys of up to {MAX_KEY_LENGTH} characters, with texts of up to "
            f"{MAX_VALUE_LENGTH} characters. For your own use: BookIt only stores them."
        )
        super().__init__(**{"required": False, "help_text": text, **options})

    def to_internal_value(self, data: Any) -> dict[str, str | None]:
        """Return the texts by key; None means that the key is removed."""
        if not isinstance(data, dict):
            self.fail("not_an_object")
        if len(data) > MAX_CHANGES:
            self.fail("too_many_changes")
        if not all(1 <= len(key) <= MAX_KEY_LENGTH for key in data):
            self.fail("key_length")
        if any("\0" in key for key in data):
            self.fail("null_characters")
        if sum(value is not None for value in data.values()) > MAX_KEYS:
            self.fail("too_many_keys")
        wrong = {key: problem for key, value in data.items() if (problem := _problem(value))}
        if wrong:
            raise serializers.ValidationError(
                {key: [self.error_messages[problem]] for key, problem in wrong.items()}
            )
        return data

    def to_representation(self, value: Any) -> Any:
        """Return the texts by key."""
        return value


def _problem(value: Any) -> str | None:
    """Return the name of the error of a value, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        return "not_a_text"
    if "\0" in value:
        return "null_characters"
    return "too_long" if len(value) > MAX_VALUE_LENGTH else None


class MetadataExtension(OpenApiSerializerFieldExtension):
    """Describes metadata in the OpenAPI document. Only requests can contain nulls."""

    target_class = MetadataField

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        """Return the schema of the field."""
        kind: Any = ["string", "null"] if direction == "request" else "string"
        schema = {
            "type": "object",
            "additionalProperties": {"type": kind, "maxLength": MAX_VALUE_LENGTH},
            "propertyNames": {"minLength": 1, "maxLength": MAX_KEY_LENGTH},
            "maxProperties": MAX_CHANGES if direction == "request" else MAX_KEYS,
        }
        return append_meta(schema, {"description": str(self.target.help_text)})
