"""Endpoints of providers."""

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from accounts.permissions import IsProviderOrAdmin, signed_in
from bookit.api.views import RowViewSet
from bookit.responses import Response
from catalog.providers import services
from catalog.providers.filters import ProviderFilter
from catalog.providers.serializers import ProviderChangeSerializer, ProviderSerializer


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="List providers"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a provider"),
)
class ProviderViewSet(RowViewSet):
    """Providers, as anyone can see them."""

    reads_replicas = True
    permission_classes = [AllowAny]
    costly_with = ("q", "category")
    serializer_class = ProviderSerializer
    filterset_class = ProviderFilter
    ordering_fields = {"name": "name", "created_at": "created_at"}
    default_ordering = ["name"]
    queryset = services.listed()


class ProfileViewSet(RowViewSet):
    """The profile of the signed-in provider or admin."""

    permission_classes = [IsProviderOrAdmin]
    serializer_class = ProviderSerializer
    pagination_class = None
    input_classes = {"partial_update": ProviderChangeSerializer}

    @extend_schema(
        tags=["Catalog"], summary="Change your public profile", responses=ProviderSerializer
    )
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change what the public list of providers shows about you."""
        return self.shown(services.update_profile(actor=signed_in(request), changes=self.checked()))
