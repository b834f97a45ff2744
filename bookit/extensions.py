"""Extension points: an app declares an extension point, and the apps above the app add values."""

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
Added = TypeVar("Added")


class Extensions(dict[str, Value]):
    """A dictionary of values that an app uses, and that the app itself and the apps above it add.

    The apps above an app are those that may import it. The app that declares the dictionary reads
    it without importing the apps above. An app above adds a function or class with a decorator. The
    `AppConfig.ready()` of that app, its `admin` module or its `urls` module must import the module
    of the decorated function::

        @EVENT_DATA.add("review.created")
        def reviews(events): ...
    """

    def add(self, *names: str) -> Callable[[Added], Added]:
        """Return a decorator that adds a function or class under these names.

        Any other value is added by calling the decorator with it: `HOME_CARDS.add("jobs")(card)`.

        Raises:
            ValueError: one of the names already has a different value.
        """

        def add(thing: Added) -> Added:
            for name in names:
                if self.setdefault(name, thing) is not thing:  # type: ignore[arg-type]
                    raise ValueError(f"{name} was added before: {self[name]!r}")
            return thing

        return add
