"""URLs of accounts."""

from django.urls import path

from accounts.keys.urls import urlpatterns as keys
from accounts.roles.urls import urlpatterns as roles
from accounts.sessions.urls import urlpatterns as sessions
from accounts.viewsets import (
    AuthViewSet,
    ExportViewSet,
    MeViewSet,
    PasswordViewSet,
    UserViewSet,
    VerificationViewSet,
)

urlpatterns = [
    *keys,
    *roles,
    *sessions,
    path("auth/register", AuthViewSet.as_view({"post": "register"})),
    path("auth/password-reset", AuthViewSet.as_view({"post": "password_reset"})),
    path("auth/password-reset/confirm", AuthViewSet.as_view({"post": "confirm_password_reset"})),
    path("auth/verify-email", AuthViewSet.as_view({"post": "verify_email"})),
    path("auth/verify-email/resend", VerificationViewSet.as_view({"post": "resend"})),
    path(
        "me",
        MeViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("me/password", PasswordViewSet.as_view({"post": "password"})),
    path("me/export", ExportViewSet.as_view({"get": "export"})),
    path("users", UserViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "users/<id:pk>",
        UserViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
]
