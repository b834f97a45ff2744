"""Lists of rows, as their addresses ask for them."""

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import DataError
from django.http import HttpRequest

# An address that orders by more columns than this was not made by a click.
MOST_ORDERS = 20


class SenselessList(Exception):
    """The address of a list asks for what no list can show."""


class StrictChangeList(ChangeList):
    """A list that raises `SenselessList` for every address that makes no sense.

    Django redirects some of these addresses to `?e=1`, which says nothing, blames the database for
    others, and raises for the rest, partly while the page is being rendered.
    """

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(request, *args, **kwargs)
        except (
            IncorrectLookupParameters,
            ValidationError,
            ValueError,
            OverflowError,
            DataError,
        ) as error:
            raise SenselessList from error

    def get_filters(self, request: HttpRequest) -> Any:
        """Return the filters, after a check of the dates, which the page will read again."""
        if self.date_hierarchy:
            year, month, day = (
                self.params.get(f"{self.date_hierarchy}__{part}")
                for part in ("year", "month", "day")
            )
            if (month and not year) or (day and not month):
                raise SenselessList
        return super().get_filters(request)
