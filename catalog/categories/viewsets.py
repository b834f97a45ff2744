"""The endpoint of categories."""

from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.permissions import AllowAny

from bookit.api.views import RowViewSet
from bookit.database.prepared import Bound, Prepared
from catalog.categories.models import Category
from catalog.categories.serializers import CategorySerializer

CATEGORIES = Prepared(Category.objects.in_use)


@extend_schema_view(
    list=extend_schema(
        tags=["Catalog"],
        summary="List the categories of services",
        description=(
            "Return the categories of active services. Names that differ only in case are one "
            "category."
        ),
    )
)
class CategoryViewSet(RowViewSet):
    """The categories of services, for anyone."""

    reads_replicas = True
    permission_classes = [AllowAny]
    serializer_class = CategorySerializer
    ordering_fields = {"name": "key", "services": "total"}
    default_ordering = ["key"]
    queryset = Category.objects.all()

    def listed(self) -> Bound:
        """Return the categories that have active services."""
        return CATEGORIES()
