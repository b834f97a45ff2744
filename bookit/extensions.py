"""What an app lets the apps above it add."""

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
Added = TypeVar("Added")


class Extensions(dict[str, Value]):
    """Things that an app uses and that the apps above it add, by name.

    An app that knows nothing of those above it declares one and reads it like a dictionary. An app
    above adds to it beside the definition of the thing, in a module that its `AppConfig.ready()`
    imports::

        @EVENT_DATA.add("review.created")
        def reviews(events): ...
    """

    def add(self, *names: str) -> Callable[[Added], Added]:
        """Return a decorator that adds a thing under these names.

        Raises:
            ValueError: there is something under one of the names.
        """

        def add(thing: Added) -> Added:
            for name in names:
                if self.setdefault(name, thing) is not thing:  # type: ignore[arg-type]
                    raise ValueError(f"{name} was added before: {self[name]!r}")
            return thing

        return add
