"""Where the rows of a model are stored if the database is spread over several servers."""

from collections.abc import Iterator
from enum import Enum

from django.apps import apps
from django.db.models import Model


class Layout(Enum):
    """Where the rows of a model are stored. A model names its layout in its attribute `layout`.

    The rows of models without this attribute stay on the coordinator.
    """

    #: All rows of a calendar are on one worker, in colocated shards.
    BY_CALENDAR = "by calendar"
    #: Every server has all rows, so statements about a calendar can read them on the calendar's
    #: worker.
    EVERYWHERE = "on every server"


def models_with(layout: Layout) -> Iterator[type[Model]]:
    """Yield the models with this layout, in the order in which they are installed and defined.

    This puts a model after the models to which it refers.
    """
    for model in apps.get_models():
        if getattr(model, "layout", None) is layout:
            yield model
