"""The bodies of requests and responses about sessions."""

from typing import Any

from rest_framework import serializers

from accounts.serializers import ANA, LookupField, PasswordField, UserSerializer
from accounts.sessions.models import Session
from accounts.sessions.services import SignedIn
from bookit.api.schema import example
from bookit.api.serializers import RowSerializer, StrictSerializer


@example(
    "Signed in",
    {
        **ANA,
        "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2lnbmF0dXJl",
        "refresh_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.cmVmcmVzaA",
        "token_type": "Bearer",
        "expires_in": 900,
    },
)
class SessionSerializer(UserSerializer):
    """The signed-in user, with a pair of tokens."""

    access_token = serializers.CharField(read_only=True)
    refresh_token = serializers.CharField(read_only=True)
    token_type = serializers.ChoiceField(["Bearer"], read_only=True)
    expires_in = serializers.IntegerField(
        read_only=True, help_text="The lifetime of the access token in seconds."
    )

    class Meta(UserSerializer.Meta):
        fields = [
            *UserSerializer.Meta.fields,
            "access_token",
            "refresh_token",
            "token_type",
            "expires_in",
        ]
        read_only_fields = fields

    @classmethod
    def of(cls, signed_in: SignedIn) -> dict[str, Any]:
        """Return the body of a response that issues tokens."""
        return {
            **UserSerializer.represent_instance(signed_in.user),
            "access_token": signed_in.access_token,
            "refresh_token": signed_in.refresh_token,
            "token_type": "Bearer",
            "expires_in": signed_in.expires_in,
        }


@example("Ana signs in", {"email": "ana@example.com", "password": "seven quiet otters"})
class LoginSerializer(StrictSerializer):
    """An email address and a password."""

    email = LookupField()
    password = PasswordField()


@example(
    "The refresh token of the session",
    {"refresh_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.cmVmcmVzaA"},
)
class RefreshTokenSerializer(StrictSerializer):
    """A refresh token."""

    refresh_token = serializers.CharField(max_length=4096)


@example(
    "A browser",
    {
        "id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e11",
        "created_at": "2026-11-21T09:00:00Z",
        "last_used_at": "2026-11-27T18:30:00Z",
        "address": "192.0.2.7",
        "client": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "current": True,
    },
)
class OpenSessionSerializer(RowSerializer):
    """A place where the user is signed in."""

    current = serializers.BooleanField(
        read_only=True, help_text="Whether the access token of this request belongs to the session."
    )

    class Meta:
        model = Session
        fields = ["id", "created_at", "last_used_at", "address", "client", "current"]
        read_only_fields = fields
        extra_kwargs = {
            "last_used_at": {"help_text": "When the user signed in or last got new tokens."},
            "address": {"help_text": "The IP address at login, if it is known."},
        }
