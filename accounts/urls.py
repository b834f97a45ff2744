"""URLs of accounts."""

from django.urls import path

from accounts.keys.urls import urlpatterns as keys
from accounts.roles.urls import urlpatterns as roles
from accounts.viewsets import (
    AuthViewSet,
    ExportViewSet,
    MeViewSet,
    PasswordViewSet,
    SessionViewSet,
    UserViewSet,
    VerificationViewSet,
)

urlpatterns = [
    *keys,
    *roles,
    path("auth/register", AuthViewSet.as_view({"post": "register"})),
    path("auth/login", AuthViewSet.as_view({"post": "login"})),
    path("auth/refresh", AuthViewSet.as_view({"post": "refresh"})),
    path("auth/logout", AuthViewSet.as_view({"post": "logout"})),
    path("auth/password-reset", AuthViewSet.as_view({"post": "password_reset"})),
    path("auth/password-reset/confirm", AuthViewSet.as_view({"post": "confirm_password_reset"})),
    path("auth/verify-email", AuthViewSet.as_view({"post": "verify_email"})),
    path("auth/verify-email/resend", VerificationViewSet.as_view({"post": "resend"})),
    path(
        "me",
        MeViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
    path("me/password", PasswordViewSet.as_view({"post": "password"})),
    path("me/sessions", SessionViewSet.as_view({"get": "list"})),
    path("me/sessions/<id:pk>", SessionViewSet.as_view({"delete": "destroy"})),
    path("me/export", ExportViewSet.as_view({"get": "export"})),
    path("users", UserViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "users/<id:pk>",
        UserViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
]
