"""Endpoints of accounts."""

from collections.abc import Iterator
from datetime import UTC
from tempfile import TemporaryFile
from typing import Any

from django.http import FileResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
)
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request

from accounts import services
from accounts.filters import UserFilter
from accounts.models import User
from accounts.permissions import IsPermitted, signed_in
from accounts.privacy import services as privacy
from accounts.serializers import (
    ANA,
    OwnPasswordSerializer,
    PasswordChangeSerializer,
    PasswordResetConfirmSerializer,
    PasswordResetSerializer,
    ProfileSerializer,
    RegisterSerializer,
    UserChangeSerializer,
    UserCreateSerializer,
    UserSerializer,
    VerifyEmailSerializer,
)
from accounts.sessions.clients import client_of
from accounts.sessions.serializers import SessionSerializer
from bookit import deadlines
from bookit.api.etags import conditional
from bookit.api.schema import errors
from bookit.api.throttles import SignInThrottle
from bookit.api.views import RowViewSet
from bookit.database.metadata import stored
from bookit.idempotency.views import idempotent
from bookit.json import dumps_in_parts
from bookit.languages import accepted
from bookit.responses import JSON, Response
from bookit.runtime.costly import ALWAYS

# A large export, and the deletion of an account, get this many seconds in addition to the usual
# time limit of a request, because every user has a right to them. Few take so long.
PRIVACY_SECONDS = 50.0


class AuthViewSet(RowViewSet):
    """Registering, password resets and verifying an email address.

    Nobody has to be signed in: the `Authorization` header is ignored.
    """

    authentication_classes = []
    with_secrets = {"register"}
    permission_classes = [AllowAny]
    throttle_classes = [SignInThrottle]
    serializer_class = SessionSerializer
    pagination_class = None
    input_classes = {
        "register": RegisterSerializer,
        "password_reset": PasswordResetSerializer,
        "confirm_password_reset": PasswordResetConfirmSerializer,
        "verify_email": VerifyEmailSerializer,
    }

    @extend_schema(
        tags=["Accounts"],
        summary="Create an account and sign in",
        responses={201: SessionSerializer},
        extensions=errors("email_taken"),
    )
    def register(self, request: Request) -> Response:
        """Create an account with the role `user`."""
        fields = self.checked()
        # If the body has no `language`, the account gets the language of `Accept-Language`.
        spoken = accepted(request.META.get("HTTP_ACCEPT_LANGUAGE", ""))
        if spoken:
            fields.setdefault("language", spoken)
        session = services.register(client=client_of(request._request), at=timezone.now(), **fields)
        return Response(
            SessionSerializer.of(session),
            status=201,
            headers={"Location": request.build_absolute_uri("/me")},
        )

    @extend_schema(tags=["Accounts"], summary="Request a password reset", responses={202: None})
    def password_reset(self, request: Request) -> Response:
        """Send an email with a token that sets a new password. The token is valid for an hour.

        The response is the same if no account has the email address.
        """
        services.request_password_reset(**self.checked())
        return Response(status=202)

    @extend_schema(
        tags=["Accounts"],
        summary="Set a new password",
        responses={204: None},
        extensions=errors("token_invalid"),
    )
    def confirm_password_reset(self, request: Request) -> Response:
        """Set a new password with the token from an email. All sessions of the account end.

        The token of an invitation is used here too. Each token works only once.
        """
        services.reset_password(at=timezone.now(), **self.checked())
        return Response(status=204)

    @extend_schema(
        tags=["Accounts"],
        summary="Verify an email address",
        responses={204: None},
        extensions=errors("token_invalid", "email_taken"),
    )
    def verify_email(self, request: Request) -> Response:
        """Verify an email address with the token that was sent to it. A token works only once.

        A new address of an account replaces the old one.
        """
        services.verify_email(at=timezone.now(), **self.checked())
        return Response(status=204)


class MeViewSet(RowViewSet):
    """The signed-in user's own account."""

    permission_classes = [IsAuthenticated]
    serializer_class = UserSerializer
    pagination_class = None
    input_classes = {
        "partial_update": ProfileSerializer,
        "destroy": OwnPasswordSerializer,
    }

    def current(self) -> User:
        """Return the signed-in user."""
        return signed_in(self.request)

    @extend_schema(tags=["Accounts"], summary="Show your account")
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return your account."""
        return self.shown(signed_in(request))

    @extend_schema(
        tags=["Accounts"],
        summary="Change your account",
        responses=UserSerializer,
        extensions=errors("email_taken"),
    )
    @conditional
    def partial_update(self, request: Request) -> Response:
        """Change your account. A new email address requires `current_password`.

        The new address takes effect once it is verified with the token that is sent to it. The old
        address is notified. To cancel the change, send the current `email` with `current_password`.
        `metadata` is merged: null removes a key.
        """
        user, changes = signed_in(request), self.checked()
        if {"email", "current_password"} <= changes.keys():
            # The password is checked. Like the response of `register`, this response reveals
            # whether an account has the email address. So the rate limit for signing in applies:
            # over the limit, this call raises `LimitExceeded`.
            SignInThrottle().allow_request(request, self)
        return self.shown(
            services.update_profile(user=user, changes=changes, client=client_of(request._request))
        )

    @extend_schema(
        tags=["Accounts"],
        summary="Delete your account",
        request=OwnPasswordSerializer,
        responses={204: None},
        extensions=errors("last_admin"),
    )
    @conditional
    def destroy(self, request: Request) -> Response:
        """Delete your account for good. Your future bookings are cancelled.

        Personal data is erased. Your reviews are kept without a name.
        """
        # This endpoint checks a password, so the rate limit for signing in applies. Over the
        # limit, this call raises `LimitExceeded`.
        SignInThrottle().allow_request(request, self)
        deadlines.extend(PRIVACY_SECONDS)
        privacy.erase_own(
            user=signed_in(request),
            client=client_of(request._request),
            at=timezone.now(),
            **self.checked(),
        )
        return Response(status=204)


class PasswordViewSet(MeViewSet):
    """The signed-in user's own password.

    The rate limit for signing in applies, because this endpoint also checks a password.
    """

    throttle_classes = [SignInThrottle]
    input_classes = {"password": PasswordChangeSerializer}

    @extend_schema(tags=["Accounts"], summary="Change your password", responses={204: None})
    def password(self, request: Request) -> Response:
        """Change your password. All sessions of the account end."""
        services.change_password(
            user=signed_in(request), client=client_of(request._request), **self.checked()
        )
        return Response(status=204)


class VerificationViewSet(MeViewSet):
    """Emails with which the signed-in user verifies an address."""

    throttle_classes = [SignInThrottle]

    @extend_schema(
        tags=["Accounts"],
        summary="Send the verification email again",
        request=None,
        responses={202: None},
    )
    def resend(self, request: Request) -> Response:
        """Send another email to your new address, or to your current one if it is not verified."""
        services.request_verification(user=signed_in(request))
        return Response(status=202)


class ExportViewSet(MeViewSet):
    """The personal data of the signed-in user."""

    costly_with = ALWAYS

    @extend_schema(
        tags=["Accounts"],
        summary="Export your data",
        responses={
            200: OpenApiResponse(
                OpenApiTypes.OBJECT,
                description="Your data by subject, for example `user`, `sessions` and `bookings`.",
                examples=[OpenApiExample("An export", {"user": ANA, "sessions": []})],
            )
        },
    )
    def export(self, request: Request) -> Response | FileResponse:
        """Return your personal data, without secrets."""
        headers = {"Content-Disposition": 'attachment; filename="bookit-export.json"'}
        found = privacy.export(user=signed_in(request))
        # Only a large export contains iterators.
        if not any(isinstance(each, Iterator) for each in found.values()):
            return Response(found, headers=headers)
        deadlines.extend(PRIVACY_SECONDS)
        # The export is complete before it is sent, so the client's speed does not matter, and an
        # error is an ordinary response. The file keeps a large export out of memory.
        file = TemporaryFile()  # noqa: SIM115 - Django closes it with the response
        file.writelines(dumps_in_parts(found, getattr(request, "zone", UTC)))
        file.seek(0)
        return FileResponse(file, content_type=JSON, headers=headers)


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
    input_classes = {"create": UserCreateSerializer, "partial_update": UserChangeSerializer}
    queryset = User.objects.all().present()

    @extend_schema(
        tags=["Users"],
        summary="Create an account",
        responses={201: UserSerializer},
        extensions=errors("email_taken"),
    )
    @idempotent
    def create(self, request: Request) -> Response:
        """Create an account with any role. Its owner gets an email to set a password."""
        fields = self.checked()
        user = User(metadata=stored(fields.pop("metadata", None)), **fields)
        return self.created(
            services.add_user(user=user, actor=signed_in(request), at=timezone.now())
        )

    @extend_schema(
        tags=["Users"],
        summary="Change an account",
        responses=UserSerializer,
        extensions=errors("last_admin"),
    )
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change an account's name, role, staff roles or metadata, or whether it is active.

        The tokens of a deactivated user stop working at once.
        """
        return self.shown(
            services.update_user(
                user_id=pk, actor=signed_in(request), changes=self.checked(), at=timezone.now()
            )
        )

    @extend_schema(
        tags=["Users"],
        summary="Delete an account",
        responses={204: None},
        extensions=errors("last_admin"),
    )
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete an account for good, as its owner can with `DELETE /me`."""
        deadlines.extend(PRIVACY_SECONDS)
        privacy.erase_user(user_id=pk, actor=signed_in(request), at=timezone.now())
        return Response(status=204)
