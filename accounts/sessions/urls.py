"""URLs of sessions."""

from django.urls import path

from accounts.sessions.viewsets import LoginViewSet, SessionViewSet

urlpatterns = [
    path("auth/login", LoginViewSet.as_view({"post": "login"})),
    path("auth/refresh", LoginViewSet.as_view({"post": "refresh"})),
    path("auth/logout", LoginViewSet.as_view({"post": "logout"})),
    path("me/sessions", SessionViewSet.as_view({"get": "list"})),
    path("me/sessions/<id:pk>", SessionViewSet.as_view({"delete": "destroy"})),
]
