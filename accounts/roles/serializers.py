"""The bodies of requests and responses about staff roles."""

from django.db.models import F
from rest_framework import serializers

from accounts.roles.models import Role, permission_names
from bookit.api.schema import example
from bookit.api.serializers import ListField, RowSerializer

RECEPTION = {
    "name": "Reception",
    "description": "Answers the telephone and confirms bookings.",
    "permissions": ["bookings.change_booking", "bookings.view_booking"],
}


@example(
    "A receptionist",
    RECEPTION,
    response={
        "id": "0199d3a2-5b7d-7c40-9e11-8f3a6d2c4b95",
        "created_at": "2026-11-21T09:00:00Z",
        "updated_at": "2026-11-21T09:00:00Z",
    },
)
class RoleSerializer(RowSerializer):
    """A named set of permissions, which users with this role have."""

    name = serializers.CharField(max_length=150)
    description = serializers.CharField(required=False, allow_blank=True, max_length=500)
    permissions = ListField(
        child=serializers.CharField(max_length=100),
        max_length=100,
        help_text="For example `bookings.view_booking`. You can give only permissions you have.",
    )

    annotations = {"name": F("group__name"), "permissions": permission_names("group")}

    class Meta:
        model = Role
        fields = ["id", "name", "description", "permissions", "created_at", "updated_at"]
        read_only_fields = ["created_at", "updated_at"]
