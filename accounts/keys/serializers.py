"""The bodies of requests and responses about API keys."""

from typing import Any

from rest_framework import serializers

from accounts.keys.models import ApiKey
from bookit.api.schema import example
from bookit.api.serializers import ListField, RowSerializer, StrictSerializer
from bookit.times import InstantField

TILL = {
    "name": "Till at the entrance",
    "permissions": ["bookings.view_booking"],
    "expires_at": "2027-12-01T00:00:00Z",
}
STORED = {
    "id": "0199d3a8-1d62-7b0e-8a57-2c9f4e6b7d13",
    "prefix": "bk_Q3dYb0xP",
    **TILL,
    "last_used_at": None,
    "created_at": "2026-11-21T09:00:00Z",
}


@example("An API key", STORED)
class ApiKeySerializer(RowSerializer):
    """An API key, without the key itself."""

    permissions = serializers.ListField(
        child=serializers.CharField(),
        allow_null=True,
        read_only=True,
        help_text=(
            "What the key may do; null: all you may do, except manage your account, feed URLs, "
            "users and roles."
        ),
    )

    class Meta:
        model = ApiKey
        fields = [
            "id",
            "name",
            "prefix",
            "permissions",
            "expires_at",
            "last_used_at",
            "created_at",
        ]
        read_only_fields = fields


@example("An API key", {**STORED, "key": f"bk_{'Q3dYb0xP':A<54}"})
class ApiKeySecretSerializer(ApiKeySerializer):
    """A new API key. Only this response contains the key."""

    key = serializers.CharField(
        read_only=True, help_text="Send it as `Authorization: Bearer bk_...`, and store it safely."
    )

    class Meta(ApiKeySerializer.Meta):
        fields = [*ApiKeySerializer.Meta.fields, "key"]
        read_only_fields = fields

    @classmethod
    def of(cls, stored: ApiKey, key: str) -> dict[str, Any]:
        """Return the body of the response to the creation of a key."""
        return {**ApiKeySerializer.represent_instance(stored), "key": key}


@example("A key with one permission", TILL)
class ApiKeyCreateSerializer(StrictSerializer):
    """A new API key: its name, permissions and expiry."""

    # A client may send back an API key that it has read. Its other fields are ignored.
    ignored = frozenset(ApiKeySecretSerializer.Meta.fields)

    name = serializers.CharField(max_length=100)
    permissions = ListField(
        child=serializers.CharField(max_length=100),
        required=False,
        allow_null=True,
        min_length=1,
        max_length=100,
        help_text="For example `bookings.view_booking`; by default null.",
    )
    expires_at = InstantField(
        required=False, allow_null=True, help_text="By default, the key does not expire."
    )
