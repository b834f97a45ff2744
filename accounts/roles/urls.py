"""URLs of staff roles."""

from django.urls import path

from accounts.roles.viewsets import RoleViewSet

urlpatterns = [
    path("roles", RoleViewSet.as_view({"get": "list", "post": "create"})),
    path(
        "roles/<id:pk>",
        RoleViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
    ),
]
