"""Filters for lists of users."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from accounts.models import User
from bookit.api.filters import YES_NO, FilterSet


class UserFilter(FilterSet):
    """Filters users by name, email address, role, and whether they are active."""

    q = filters.CharFilter(method="search", max_length=200)
    role = filters.ChoiceFilter(choices=User.Role.choices)
    active = filters.TypedChoiceFilter(field_name="is_active", **YES_NO)

    class Meta:
        model = User
        fields: list[str] = []

    def search(self, queryset: Any, name: str, value: str) -> QuerySet[User]:
        """Return the users whose name or email address contains `value`."""
        return queryset.search(value)
