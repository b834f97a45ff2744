"""List filters that do not read a whole table to show their choices."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter


def one_of(values: Callable[[], Iterable[str]]) -> type[AllValuesFieldListFilter]:
    """Return the class of a filter that offers the values that `values` returns."""

    class KnownValues(AllValuesFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lookup_choices: Any = sorted(values())

    return KnownValues
