"""URLs of providers."""

from django.urls import path

from catalog.providers.viewsets import ProfileViewSet, ProviderViewSet

urlpatterns = [
    path("providers/<id:pk>", ProviderViewSet.as_view({"get": "retrieve"})),
    path("providers", ProviderViewSet.as_view({"get": "list"})),
    path("me/provider", ProfileViewSet.as_view({"patch": "partial_update"})),
]
