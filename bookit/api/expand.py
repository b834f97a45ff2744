"""The parameter `expand`, which adds resources to the rows that contain their ids."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from rest_framework.request import Request

from bookit.api.serializers import RowSerializer
from bookit.errors.refusals import refuse

EXPAND = "expand"

Row = dict[str, Any]
Rows = list[Row]


@dataclass(frozen=True)
class Expansion:
    """A resource that `expand` can add to a row.

    Args:
        key: the field of the row by which the resource is found, for example `service_id`.
        serializer: the serializer of the resource, for the OpenAPI document.
        find: a function that maps the values of `key` to resources, with one query. It may leave
            out resources that the client may not see. The rows with the ids of these resources
            stay as they are.
    """

    key: str
    serializer: type[RowSerializer]
    find: Callable[[Request, Collection[Any]], Mapping[Any, Row]]


def by_id(key: str, serializer: type[RowSerializer]) -> Expansion:
    """Return the expansion of a resource that everybody may see and whose id is in `key`."""

    def find(request: Request, ids: Collection[Any]) -> Mapping[Any, Row]:
        rows = serializer.rows(serializer.Meta.model.objects.filter(pk__in=ids).order_by())
        return {row["id"]: serializer.represent(row) for row in rows}

    return Expansion(key, serializer, find)


def expand(request: Request, rows: Rows, expandable: Mapping[str, Expansion]) -> None:
    """Add to each row the resources that the request names, with one query for each name.

    If the id in a row is null, the resource is also null.

    Raises:
        ValidationError: a name is not expandable.
    """
    names = ",".join(request.query_params.getlist(EXPAND)).split(",")
    if not expandable.keys() >= {*names}:
        known = ", ".join(sorted(expandable))
        raise refuse(
            EXPAND, _("Must be one or more of %(known)s, separated by commas.") % {"known": known}
        )
    for name in dict.fromkeys(names):
        expansion = expandable[name]
        ids = {row[expansion.key] for row in rows} - {None}
        found = expansion.find(request, ids) if ids else {}
        for row in rows:
            key = row[expansion.key]
            if key is None or key in found:
                row[name] = found.get(key)
