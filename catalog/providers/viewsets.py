"""Endpoints of providers."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import User
from accounts.permissions import IsProviderOrAdmin, signed_in
from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from catalog.providers import services
from catalog.providers.filters import ProviderFilter
from catalog.providers.serializers import ProviderChangeSerializer, ProviderSerializer

PROVIDERS = Prepared(lambda: services.listed().order_by("name", "id"), ProviderSerializer.rows)


@extend_schema_view(
    list=extend_schema(tags=["Catalog"], summary="List providers"),
    retrieve=extend_schema(tags=["Catalog"], summary="Show a provider"),
)
class ProviderViewSet(RowViewSet):
    """The people who provide services, for anyone."""

    reads_replicas = True
    permission_classes = [AllowAny]
    costly_with = ("q", "category")
    serializer_class = ProviderSerializer
    filterset_class = ProviderFilter
    ordering_fields = {"name": "name", "created_at": "created_at"}
    default_ordering = ["name"]
    queryset = services.listed()

    def listed(self) -> QuerySet[User] | Bound:
        """Return the providers: a prepared query or, if the request skips rows, a queryset.

        With a queryset, `Pagination` reads only the ids of the rows that it skips. The prepared
        query also reads their services and ratings. At an offset of 9,000, that takes 100 times as
        long.
        """
        skips = {"offset", "page"} & self.request.query_params.keys()
        return services.listed() if skips else PROVIDERS()


class ProfileViewSet(RowViewSet):
    """The signed-in provider's own profile."""

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
