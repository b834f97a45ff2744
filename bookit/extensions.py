"""Extension points: an app declares them, and the apps above it add to them."""

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
Added = TypeVar("Added")


class Extensions(dict[str, Value]):
    """An extension point: values that an app uses and that the apps above it add, by name.

    An app declares one and reads it like a dictionary, without importing the apps above it. An app
    above it adds a value where it defines the value, in a module that its `AppConfig.ready()`
    imports::

        @EVENT_DATA.add("review.created")
        def reviews(events): ...
    """

    def add(self, *names: str) -> Callable[[Added], Added]:
        """Return a decorator that adds a function or class under these names.

        Raises:
            ValueError: one of the names is taken.
        """

        def add(thing: Added) -> Added:
            for name in names:
                if self.setdefault(name, thing) is not thing:  # type: ignore[arg-type]
                    raise ValueError(f"{name} was added before: {self[name]!r}")
            return thing

        return add
