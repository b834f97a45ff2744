"""Filters for lists of reviews."""

from django_filters import rest_framework as filters

from bookit.api.filters import FilterSet, UUIDFilter
from reviews.models import Review


class ReviewFilter(FilterSet):
    """Filters reviews by service and rating."""

    service_id = UUIDFilter(field_name="service")
    rating = filters.TypedChoiceFilter(
        choices=[(str(stars), str(stars)) for stars in range(1, 6)], coerce=int
    )

    class Meta:
        model = Review
        fields: list[str] = []
