"""Endpoints of accounts."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.filters import UserFilter
from accounts.models import User
from accounts.permissions import IsPermitted, signed_in
from accounts.serializers import (
    LoginSerializer,
    PasswordChangeSerializer,
    ProfileSerializer,
    RefreshTokenSerializer,
    RegisterSerializer,
    SessionSerializer,
    UserChangeSerializer,
    UserSerializer,
)
from bookit.api.addresses import client_address
from bookit.api.schema import errors
from bookit.api.throttles import SignInThrottle
from bookit.api.views import RowViewSet


def _client(request: Request) -> services.Client:
    address = client_address(request._request)
    return services.Client(address, request.headers.get("User-Agent", ""))


class AuthViewSet(RowViewSet):
    """Registering, signing in and signing out. The `Authorization` header is ignored."""

    authentication_classes = []
    permission_classes = [AllowAny]
    throttle_classes = [SignInThrottle]
    serializer_class = SessionSerializer
    pagination_class = None
    input_classes = {
        "register": RegisterSerializer,
        "login": LoginSerializer,
        "refresh": RefreshTokenSerializer,
        "logout": RefreshTokenSerializer,
    }

    @extend_schema(
        tags=["Accounts"],
        summary="Create an account and sign in",
        responses={201: SessionSerializer},
        extensions=errors("email_taken"),
    )
    def register(self, request: Request) -> Response:
        """Create an account with the role `user`."""
        signed_in = services.register(client=_client(request), at=timezone.now(), **self.checked())
        return Response(
            SessionSerializer.of(signed_in),
            status=201,
            headers={"Location": request.build_absolute_uri("/me")},
        )

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
                services.log_in(client=_client(request), at=timezone.now(), **self.checked())
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
        return Response(SessionSerializer.of(services.refresh(at=timezone.now(), **self.checked())))

    @extend_schema(
        tags=["Accounts"],
        summary="Sign out",
        responses={204: None},
        extensions=errors("token_invalid"),
    )
    def logout(self, request: Request) -> Response:
        """End the session that the refresh token belongs to."""
        services.log_out(at=timezone.now(), **self.checked())
        return Response(status=204)


class MeViewSet(RowViewSet):
    """The signed-in user's own account."""

    permission_classes = [IsAuthenticated]
    serializer_class = UserSerializer
    pagination_class = None
    input_classes = {"partial_update": ProfileSerializer, "password": PasswordChangeSerializer}

    @extend_schema(tags=["Accounts"], summary="Show your profile")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the account of the signed-in user."""
        return self.shown(signed_in(request))

    @extend_schema(
        tags=["Accounts"],
        summary="Change your profile",
        responses=UserSerializer,
        extensions=errors("email_taken"),
    )
    def partial_update(self, request: Request) -> Response:
        """Change your name, email address or time zone."""
        user, changes = signed_in(request), self.checked()
        if changes.get("email", user.email) != user.email:
            # Like the response of `register`, this response reveals whether the email address has
            # an account.
            SignInThrottle().allow_request(request, self)
        return self.shown(services.update_profile(user=user, changes=changes))

    @extend_schema(tags=["Accounts"], summary="Change your password", responses={204: None})
    def password(self, request: Request) -> Response:
        """Change your password. All refresh tokens of the account are revoked."""
        services.change_password(user=signed_in(request), client=_client(request), **self.checked())
        return Response(status=204)


class PasswordViewSet(MeViewSet):
    """The signed-in user's own password.

    The rate limit for logins applies, because this endpoint also checks a password.
    """

    throttle_classes = [SignInThrottle]


@extend_schema_view(
    list=extend_schema(tags=["Users"], summary="List accounts"),
    retrieve=extend_schema(tags=["Users"], summary="Show an account"),
)
class UserViewSet(RowViewSet):
    """All accounts, for admins and for staff who may see or change them."""

    permission_classes = [IsPermitted]
    serializer_class = UserSerializer
    filterset_class = UserFilter
    ordering_fields = {"created_at": "created_at", "name": "name", "email": "email"}
    default_ordering = ["created_at"]
    cursor_pages = True
    input_classes = {"partial_update": UserChangeSerializer}
    queryset = User.objects.all()

    @extend_schema(
        tags=["Users"],
        summary="Change an account",
        responses=UserSerializer,
        extensions=errors("last_admin"),
    )
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change an account's name, role or staff roles, or whether it is active.

        The tokens of a deactivated user stop working at once.
        """
        return self.shown(
            services.update_user(
                user_id=pk, actor=signed_in(request), changes=self.checked(), at=timezone.now()
            )
        )
