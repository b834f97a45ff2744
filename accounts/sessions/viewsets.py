"""Endpoints of sessions."""

from typing import Any

from django.db.models import BooleanField, DateTimeField, ExpressionWrapper, Q, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request

from accounts.models import User
from accounts.permissions import signed_in
from accounts.sessions import services as sessions
from accounts.sessions.clients import client_of
from accounts.sessions.models import Session
from accounts.sessions.serializers import (
    LoginSerializer,
    OpenSessionSerializer,
    RefreshTokenSerializer,
    SessionSerializer,
)
from accounts.sessions.tokens import AccessToken
from bookit.api.schema import errors
from bookit.api.throttles import SignInThrottle
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from bookit.responses import Response


class LoginViewSet(RowViewSet):
    """Signing in, new tokens, and signing out.

    Nobody has to be signed in: the `Authorization` header is ignored.
    """

    authentication_classes = []
    with_secrets = {"login", "refresh"}
    permission_classes = [AllowAny]
    throttle_classes = [SignInThrottle]
    serializer_class = SessionSerializer
    pagination_class = None
    input_classes = {
        "login": LoginSerializer,
        "refresh": RefreshTokenSerializer,
        "logout": RefreshTokenSerializer,
    }

    @extend_schema(
        tags=["Accounts"],
        summary="Sign in",
        responses={200: SessionSerializer},
        extensions=errors("invalid_credentials"),
    )
    def login(self, request: Request) -> Response:
        """Exchange an email address and a password for a pair of tokens."""
        return Response(
            SessionSerializer.of(
                sessions.log_in(
                    client=client_of(request._request), at=timezone.now(), **self.checked()
                )
            )
        )

    @extend_schema(
        tags=["Accounts"],
        summary="Exchange a refresh token",
        responses={200: SessionSerializer},
        extensions=errors("token_invalid"),
    )
    def refresh(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair of tokens. Each refresh token works only once.

        Using it a second time ends the session and revokes all of its refresh tokens.
        """
        return Response(SessionSerializer.of(sessions.refresh(at=timezone.now(), **self.checked())))

    @extend_schema(
        tags=["Accounts"],
        summary="Sign out",
        responses={204: None},
        extensions=errors("token_invalid"),
    )
    def logout(self, request: Request) -> Response:
        """End the session that the refresh token belongs to."""
        sessions.log_out(at=timezone.now(), **self.checked())
        return Response(status=204)


# The sessions of a user that have not ended. `own` is the session of the access token, if any.
SESSIONS = Prepared(
    lambda user_id, at, own: sessions.sessions_of(user=user_id, at=at).annotate(
        current=Coalesce(ExpressionWrapper(Q(pk=own), BooleanField()), Value(value=False))
    ),
    user_id=User._meta.pk,
    at=DateTimeField(),
    own=Session._meta.pk,
)


class SessionViewSet(RowViewSet):
    """The places where the signed-in user is signed in."""

    permission_classes = [IsAuthenticated]
    serializer_class = OpenSessionSerializer
    ordering_fields = {"created_at": "created_at", "last_used_at": "last_used_at"}
    default_ordering = ["-last_used_at"]
    queryset = Session.objects.all()

    def listed(self) -> Bound:
        """Return the user's sessions. `current` is true for the session of the access token."""
        token = self.request.auth
        own = token.get("session") if isinstance(token, AccessToken) else None
        return SESSIONS(user_id=signed_in(self.request).pk, at=timezone.now(), own=own)

    @extend_schema(tags=["Accounts"], summary="List your sessions")
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return your open sessions in the API and in the admin site."""
        return super().list(request, *args, **kwargs)

    @extend_schema(tags=["Accounts"], summary="End a session", responses={204: None})
    def destroy(self, request: Request, pk: Any) -> Response:
        """End one of your sessions, in the API or in the admin site.

        Its access tokens work until they expire.
        """
        sessions.end_own_session(session_id=pk, user=signed_in(request), at=timezone.now())
        return Response(status=204)
