"""URLs of API keys."""

from django.urls import path

from accounts.keys.viewsets import ApiKeyViewSet

urlpatterns = [
    path("me/api-keys", ApiKeyViewSet.as_view({"get": "list", "post": "create"})),
    path("me/api-keys/<id:pk>", ApiKeyViewSet.as_view({"delete": "destroy"})),
]
