"""URLs of accounts."""

from django.urls import path

from accounts.keys.urls import urlpatterns as keys
from accounts.roles.urls import urlpatterns as roles
from accounts.viewsets import AuthViewSet, MeViewSet, PasswordViewSet, UserViewSet

urlpatterns = [
    *keys,
    *roles,
    path("auth/register", AuthViewSet.as_view({"post": "register"})),
    path("auth/login", AuthViewSet.as_view({"post": "login"})),
    path("auth/refresh", AuthViewSet.as_view({"post": "refresh"})),
    path("auth/logout", AuthViewSet.as_view({"post": "logout"})),
    path("me", MeViewSet.as_view({"get": "retrieve", "patch": "partial_update"})),
    path("me/password", PasswordViewSet.as_view({"post": "password"})),
    path("users", UserViewSet.as_view({"get": "list"})),
    path("users/<id:pk>", UserViewSet.as_view({"get": "retrieve", "patch": "partial_update"})),
]
