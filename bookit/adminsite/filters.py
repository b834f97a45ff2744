"""List filters that do not read a whole table to show their choices."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter, FieldListFilter
from django.utils.translation import gettext_lazy as _


def one_of(values: Callable[[], Iterable[str]]) -> type[AllValuesFieldListFilter]:
    """Return the class of a filter that offers the values that `values` returns."""

    class KnownValues(AllValuesFieldListFilter):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.lookup_choices: Any = sorted(values())

    return KnownValues


def is_set(title: Any, *, yes: Any, no: Any) -> type[FieldListFilter]:
    """Return the class of a filter that asks whether a column has a value.

    Args:
        yes: the words for rows with a value.
        no: the words for rows without one.
    """

    class IsSet(FieldListFilter):
        def __init__(self, field: Any, request: Any, *args: Any, **options: Any) -> None:
            super().__init__(field, request, *args, **options)
            self.title = title

        def expected_parameters(self) -> list[str | None]:
            return [f"{self.field_path}__isnull"]

        def choices(self, changelist: Any) -> Any:
            [name] = self.expected_parameters()
            chosen = self.used_parameters.get(name)
            now = chosen[-1] if isinstance(chosen, list) else chosen
            for value, words in ((None, _("All")), (False, yes), (True, no)):
                yield {
                    "selected": now == value,
                    "query_string": changelist.get_query_string({name: value}),
                    "display": words,
                }

    return IsSet
