"""Endpoints of API keys."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request

from accounts.keys import services as keys
from accounts.keys.models import ApiKey
from accounts.keys.serializers import (
    ApiKeyCreateSerializer,
    ApiKeySecretSerializer,
    ApiKeySerializer,
)
from accounts.models import User
from accounts.permissions import signed_in
from accounts.sessions.tokens import AccessToken
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from bookit.responses import Response

OWN_KEYS = Prepared(lambda user_id: ApiKey.objects.filter(user=user_id), user_id=User._meta.pk)


@extend_schema_view(
    list=extend_schema(tags=["Accounts"], summary="List your API keys"),
)
class ApiKeyViewSet(RowViewSet):
    """The signed-in user's own API keys. They cannot be managed with an API key."""

    with_secrets = {"create"}
    permission_classes = [IsAuthenticated]
    serializer_class = ApiKeySerializer
    ordering_fields = {"created_at": "created_at"}
    default_ordering = ["created_at"]
    input_classes = {"create": ApiKeyCreateSerializer}
    queryset = ApiKey.objects.all()

    def listed(self) -> Bound:
        """Return the user's own keys."""
        return OWN_KEYS(user_id=signed_in(self.request).pk)

    # This is not `@idempotent`, because the stored response would contain the API key.
    @extend_schema(
        tags=["Accounts"], summary="Create an API key", responses={201: ApiKeySecretSerializer}
    )
    def create(self, request: Request) -> Response:
        """Create a key with which a program can act for you. Only this response contains the key.

        The key can do at most what you may do at the time of use. It cannot manage your account.
        """
        token = request.auth
        stored, key = keys.create_key(
            owner=signed_in(request),
            session_id=token.get("session") if isinstance(token, AccessToken) else None,
            at=timezone.now(),
            **self.checked(),
        )
        response = self.created(stored)
        response.data = ApiKeySecretSerializer.of(stored, key)
        return response

    @extend_schema(tags=["Accounts"], summary="Delete an API key")
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete one of your API keys. It stops working at once."""
        keys.delete_key(key_id=pk, owner=signed_in(request))
        return Response(status=204)
