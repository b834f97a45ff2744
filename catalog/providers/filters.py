"""Filters for the list of providers."""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django_filters import rest_framework as filters
from rest_framework.request import Request

from accounts.models import User
from bookit.api.filters import AnyOfFilter, FilterSet, any_of
from catalog.models import Service
from catalog.providers.models import Profile

# The index of biographies contains groups of three letters, so it cannot find a shorter text.
SHORTEST_INDEXED = 3


class TextFilter(filters.CharFilter):
    """A filter by a text in names and, if the text is long enough for the index, biographies."""

    def parts(self, value: str, request: Request) -> tuple[str, ...]:
        """Return the parameters of the SQL: the text for names and, if long enough, biographies."""
        return (value,) if len(value) < SHORTEST_INDEXED else (value, value)


class ProviderFilter(FilterSet):
    """Filters providers by a text and by the categories of their services."""

    q = TextFilter(
        method="search",
        max_length=200,
        help_text=(
            "A text that the name contains, ignoring case. With three or more characters, "
            "providers whose biography contains it are found too."
        ),
    )
    category = AnyOfFilter(
        method="in_categories",
        max_length=100,
        help_text=(
            "Only providers with an active service in one of these categories (repeat the "
            "parameter), ignoring case."
        ),
    )

    class Meta:
        model = User
        fields: list[str] = []

    def search(self, queryset: Any, name: str, value: tuple[Any, ...]) -> QuerySet[User]:
        """Return the providers whose name or biography contains the text."""
        in_name, *in_biography = value
        found = Q(name__icontains=in_name)
        for text in in_biography:
            profiles = Profile.objects.filter(biography__icontains=text)
            found |= Q(pk__in=profiles.values("user"))
        return queryset.filter(found)

    def in_categories(self, queryset: Any, name: str, value: tuple[Any, ...]) -> QuerySet[User]:
        """Return the providers who have an active service in one of the categories."""
        offered = Service.objects.filter(
            any_of("category", value), calendar__provider=OuterRef("pk"), is_active=True
        )
        return queryset.filter(Exists(offered))
