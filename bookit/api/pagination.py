"""Pagination by page number, by offset, or by a cursor, which is equally fast at any depth."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import orjson
from django.core import signing
from django.db.models import Q, QuerySet, TextField
from django.http import QueryDict
from django.utils.translation import gettext as _
from rest_framework.pagination import BasePagination
from rest_framework.request import Request

from bookit.database.citus.nodes import is_distributed, open_positions
from bookit.database.counts import MAX_COUNTED
from bookit.database.prepared import Bound, Change
from bookit.errors.refusals import refuse
from bookit.json import dumps
from bookit.languages import grouped
from bookit.responses import Response
from bookit.restores import positions

if TYPE_CHECKING:
    from rest_framework.views import APIView

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
# PostgreSQL reads and discards every row that an offset skips.
MAX_OFFSET = 10_000

# Cursors contain values for comparisons in SQL. They are signed, so that clients cannot forge them.
signer = signing.Signer(salt="bookit.cursor")


# The ORM requires a field for each value of a cursor. PostgreSQL itself infers the type.
VALUE = TextField()


class Rows(Protocol):
    """Rows that can be sliced and counted like a queryset."""

    # False if `count` returned an estimate.
    count_is_exact: bool

    def __getitem__(self, part: slice, /) -> Any:
        """Return a slice of the rows."""

    def count(self) -> int:
        """Return how many rows there are, or an estimate; see `count_is_exact`."""


class Pagination(BasePagination):
    """Pages by `offset` or `page` with a count, or keyset pages by `cursor` without a count."""

    def paginate_queryset(
        self,
        queryset: "QuerySet[Any] | Rows | Sequence[Any]",
        request: Request,
        view: "APIView | None" = None,
    ) -> list[Any]:
        """Return the rows of the page that the request asks for.

        Raises:
            ValidationError: a parameter is invalid, or two parameters exclude each other.
        """
        # Views pass `Rows`; the other types are those of DRF's method. The type is only cast,
        # because a check of the protocol would take time in each request.
        queryset = cast("Rows", queryset)
        self.request = request
        query = request.query_params
        self.limit = _limit(query)
        if "cursor" in query:
            if "page" in query or "offset" in query:
                raise refuse("cursor", _("Use only one of cursor, page and offset."))
            return self._keyset_page(cast("Bound", queryset), query["cursor"])
        if "page" in query:
            if "offset" in query:
                raise refuse("page", _("Use either page or offset, not both."))
            self.offset = (_number(query["page"], "page", default=1, minimum=1) - 1) * self.limit
        else:
            self.offset = _number(query.get("offset"), "offset", default=0, minimum=0)
        has_cursors = "cursor" in self.parameters(view)
        if self.offset > MAX_OFFSET:
            raise refuse(
                "page" if "page" in query else "offset",
                (_how_to_continue() if has_cursors else _how_to_narrow(view))
                % {"most": grouped(MAX_OFFSET), "rows": grouped(MAX_OFFSET + MAX_LIMIT)},
            )
        rows = list(queryset[self.offset : self.offset + self.limit])
        self.count_is_exact = True
        if 0 < len(rows) < self.limit or (not rows and self.offset == 0):
            self.count = self.offset + len(rows)  # This is the last page, so the count is known.
        else:
            self.count = queryset.count()
            self.count_is_exact = queryset.count_is_exact
            if rows and not self.count_is_exact:
                # A low estimate must not make a full page look like the last one.
                self.count = max(self.count, self.offset + len(rows) + 1)
            elif not rows:
                # The page is empty, so the list ends before it. An estimate can be too high.
                self.count = min(self.count, self.offset)
        self.next_cursor = None
        if has_cursors and rows and self.offset + self.limit > MAX_OFFSET:
            order = [*cast("Bound", queryset).query.order]
            self.next_cursor = _encode(order, rows[-1], backwards=False)
        return rows

    def get_paginated_response(self, data: Any) -> Any:
        """Return the response with a page."""
        if "cursor" in self.request.query_params:
            return Response({"next": self.next, "previous": self.previous, "results": data})
        estimated = {} if self.count_is_exact else {"count_exact": False}
        return Response(
            {
                "count": self.count,
                **estimated,
                "next": self._next_link(),
                "previous": self._link(max(0, self.offset - self.limit)) if self.offset else None,
                "results": data,
            }
        )

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Return the parameters as the OpenAPI document shows them."""
        integer = {"type": "integer", "minimum": 0}
        instead = (
            "Cannot be combined with `cursor`, which can read further."
            if "cursor" in self.parameters(view)
            else "To reach other rows, filter or reorder the list."
        )
        described = {
            "limit": (
                {**integer, "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "The number of rows on a page.",
            ),
            "offset": (
                {**integer, "maximum": MAX_OFFSET},
                f"The number of rows to skip, at most {MAX_OFFSET:,}. {instead}",
            ),
            "page": (
                {**integer, "minimum": 1},
                (
                    f"The number of the page, from 1. A page can start at most {MAX_OFFSET:,} rows "
                    f"into the list. {instead}"
                ),
            ),
            "cursor": (
                {"type": "string"},
                (
                    "Empty for the first page; then follow `next`. Every page costs the "
                    "same, however deep, and has no `count`."
                ),
            ),
        }
        return [
            {"name": name, "in": "query", "required": False, "description": text, "schema": shape}
            for name, (shape, text) in described.items()
            if name in self.parameters(view)
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the shape of a page."""
        link = {"type": ["string", "null"], "format": "uri", "example": None}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {
                "count": {
                    "type": "integer",
                    "description": "The number of rows on all pages; absent with `cursor`.",
                    "example": 1,
                },
                "count_exact": {
                    "type": "boolean",
                    "description": (
                        "False if `count` is an estimate, otherwise absent. Counts of more than "
                        f"{MAX_COUNTED:,} rows are estimates. So are counts of lists that are "
                        "filtered by free times and have too many services to search at once."
                    ),
                    "example": False,
                },
                "next": link,
                "previous": link,
                "results": schema,
            },
        }

    def parameters(self, view: Any) -> set[str]:
        """Return the names of the query parameters that page through this view."""
        names = {"limit", "offset", "page"}
        return names | {"cursor"} if getattr(view, "cursor_pages", False) else names

    def _next_link(self) -> str | None:
        if self.offset + self.limit >= self.count:
            return None
        if self.next_cursor:
            return self._url(cursor=self.next_cursor)
        # In a list without cursors, even the deepest page has a `next` link. The link leads to an
        # error, so clients do not mistake the rows that they have read for the whole list.
        return self._link(self.offset + self.limit)

    def _link(self, offset: int) -> str:
        if "page" in self.request.query_params:
            return self._url(page=offset // self.limit + 1)
        return self._url(offset=offset)

    def _url(self, **parameters: object) -> str:
        query = self.request.query_params.copy()
        if "cursor" in parameters:
            for name in ("page", "offset"):
                query.pop(name, None)
        for name, value in parameters.items():
            query[name] = str(value)
        return self.request.build_absolute_uri(f"{self.request.path}?{query.urlencode()}")

    def _keyset_page(self, rows: Bound, cursor: str) -> list[Any]:
        """Return the rows after the cursor's row, or before it if the cursor points backwards.

        If the cursor is empty, return the first rows.
        """
        order = [*rows.query.order]
        backwards, values = _decode(cursor, order) if cursor else (False, None)
        if backwards:
            rows = rows.ordered(tuple(_reverse(name) for name in order))
        if values is not None:
            rows = rows.changed(
                Change(
                    ("after", backwards),
                    partial(_after, order, backwards),
                    {f"after_{number}": VALUE for number in range(len(order))},
                ),
                **{f"after_{number}": value for number, value in enumerate(values)},
            )
        page = rows[: self.limit + 1]
        more, page = len(page) > self.limit, page[: self.limit]
        if backwards:
            page.reverse()
        self.next = self.previous = None
        if page and (more or backwards):
            self.next = self._url(cursor=_encode(order, page[-1], backwards=False))
        if page and (more if backwards else values is not None):
            self.previous = self._url(cursor=_encode(order, page[0], backwards=True))
        return page


class EventPagination(Pagination):
    """Pages of an append-only table, oldest rows first; clients that follow cursors miss no row.

    An id is assigned before its transaction commits, so a row can become visible after a row with a
    higher id. Pages therefore show only rows of transactions before the horizon. The horizon is the
    oldest transaction that is still open, so no more rows can appear before it. Cursors read the
    rows in steps: the rows before the current horizon, in the order of ids, are one step. The rows
    from this horizon to a later horizon are the next step.

    Rows about one object are in order. Transactions that change the object wait for each other, and
    the rows of a later transaction must have higher ids than the rows of an earlier transaction. If
    the later transaction has the lower transaction id, the horizon passes neither transaction until
    both have ended, so their rows are in one step. If the later transaction has the higher
    transaction id, its rows are in the same step or in a later step.
    """

    # A cursor contains a single value, a list of steps. It is a list because each PostgreSQL server
    # counts its own transactions. On one server, the list has one step. In a distributed database,
    # it has one step for each server.
    STEPS = ["steps"]

    def paginate_queryset(
        self,
        queryset: "QuerySet[Any] | Rows | Sequence[Any]",
        request: Request,
        view: "APIView | None" = None,
    ) -> list[Any]:
        """Return the rows after the cursor, or the first rows if there is no cursor.

        Raises:
            ValidationError: a parameter is invalid.
        """
        assert isinstance(queryset, QuerySet)  # noqa: S101 - only a queryset can be filtered
        self.request = request
        query = request.query_params
        self.limit = _limit(query)
        # Read the horizon before the rows. A later horizon could pass rows that this page lacks.
        horizon = positions.horizon(using=queryset.db)
        if is_distributed():
            return self._paginate_servers(queryset, horizon.server)
        step = positions.Step(low=positions.LOWEST, high=0, last=None, server=horizon.server)
        if query.get("cursor"):
            [steps] = _decode(query["cursor"], self.STEPS)[1]
            if len(steps) != 1:  # Only a distributed database issues such cursors.
                raise refuse("cursor", _("This cursor was not issued by this API."))
            step = positions.Step(*steps[0])
        low, high, last, _server = horizon.translate(step)
        if max(low, high) > horizon.position:
            # The server was restored from a copy of its files, so its transaction ids went back.
            raise refuse(
                "cursor",
                _(
                    "This cursor was issued before the database was restored. "
                    "Start again without a cursor."
                ),
            )
        high = high or horizon.position
        rows = queryset.order_by("id").filter(transaction__gte=low, transaction__lt=high)
        if last is not None:
            rows = rows.filter(pk__gt=last)
        page = [*rows[: self.limit + 1]]
        within = len(page) > self.limit
        # More can be read if this step has more rows, or if the next step may already have rows.
        self.more = within or high < horizon.position
        following = (
            positions.Step(low, high, str(page[self.limit - 1].pk), horizon.server)
            if within
            else positions.Step(low=high, high=0, last=None, server=horizon.server)
        )
        self.cursor = _encode(self.STEPS, {"steps": [[*following]]}, backwards=False)
        return page[: self.limit]

    def _paginate_servers(self, queryset: QuerySet[Any], database: int) -> list[Any]:
        """Return the rows after the cursor, which has a step for each server, or the first rows.

        All steps together cover the rows before the horizon that each server had when its step
        began, in the order of ids. The rows about one object are on one server, so they stay in
        order.

        Args:
            database: the `server` of `positions.Step`. Below, `server` is the number of a server of
                the cluster.
        """
        horizons = open_positions(using=queryset.db)
        cursor = self.request.query_params.get("cursor")
        given: Any = _decode(cursor, self.STEPS)[1][0] if cursor else []
        # If the cursor was issued before the database was distributed, its only step does not name
        # a server of the cluster. The step belongs to the coordinator, which is server 0.
        known = {each[4] if len(each) > 4 else 0: positions.Step(*each[:4]) for each in given}
        last = next((step.last for step in known.values()), None)
        bounds = {}
        for server, horizon in horizons.items():
            step = known.get(server)
            low, high = (step.low, step.high) if step else (positions.LOWEST, 0)
            # If the cursor is within a step, servers that it does not know wait for the next step.
            bounds[server] = (low, high or (low if last and not step else horizon))
        written = Q()
        for server, (low, high) in bounds.items():
            written |= Q(server=server, transaction__gte=low, transaction__lt=high)
        rows = queryset.filter(written).order_by("id")
        if last is not None:
            rows = rows.filter(pk__gt=last)
        page = [*rows[: self.limit + 1]]
        within = len(page) > self.limit
        self.more = within or any(
            high < horizons[server] for server, (_low, high) in bounds.items()
        )
        last = str(page[self.limit - 1].pk) if within else None
        steps = [
            [low, high, last, database, server] if within else [high, 0, None, database, server]
            for server, (low, high) in bounds.items()
        ]
        self.cursor = _encode(self.STEPS, {"steps": steps}, backwards=False)
        return page[: self.limit]

    def get_paginated_response(self, data: Any) -> Any:
        """Return the response with a page; even the last page has a cursor for later rows."""
        return Response(
            {
                "next": self._url(cursor=self.cursor) if self.more else None,
                "previous": None,
                "cursor": self.cursor,
                "results": data,
            }
        )

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the shape of a page."""
        page = super().get_paginated_response_schema(schema)
        del page["properties"]["count"], page["properties"]["count_exact"]
        page["properties"]["cursor"] = {
            "type": "string",
            "description": "Where to continue, even if there are no more rows yet.",
            "example": "WzE3LDQyXQ:signature",
        }
        page["required"].append("cursor")
        return page

    def parameters(self, view: Any) -> set[str]:
        """Return the names of the query parameters that page through this view."""
        return {"limit", "cursor"}


def _how_to_continue() -> str:
    return _(
        "A page can start at most %(most)s rows into the list. To read further, use cursor instead "
        "of page and offset."
    )


def _how_to_narrow(view: Any) -> str:
    """Return a text that says whether and how the rows beyond the deepest page can be reached."""
    names = [*getattr(getattr(view, "filterset_class", None), "base_filters", ())]
    if names:
        text = _(
            "A page can start at most %(most)s rows into the list. To reach other rows, filter the "
            "list by %(names)s."
        )
        # The caller fills in the other placeholders with `%`, which would fail here.
        return text.replace("%(names)s", ", ".join(names))
    if getattr(view, "ordering_fields", None):
        return _(
            "A page can start at most %(most)s rows into the list. To reach the other end of the "
            "list, reverse the ordering."
        )
    return _(
        "A page can start at most %(most)s rows into the list. Only the first %(rows)s rows can be "
        "read."
    )


def _limit(query: QueryDict) -> int:
    return _number(query.get("limit"), "limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)


def _number(
    text: str | None, name: str, *, default: int, minimum: int, maximum: int | None = None
) -> int:
    if text is None:
        return default
    # Twelve digits are enough for any list. Python is slow to parse thousands of digits.
    is_number = text.isascii() and text.isdigit() and len(text) <= 12
    if not is_number or int(text) < minimum or (maximum is not None and int(text) > maximum):
        limits = {"minimum": minimum, "maximum": maximum}
        if maximum is None:
            raise refuse(name, _("Must be a whole number of %(minimum)d or more.") % limits)
        raise refuse(name, _("Must be a whole number from %(minimum)d to %(maximum)d.") % limits)
    return int(text)


def _reverse(name: str) -> str:
    return name[1:] if name.startswith("-") else f"-{name}"


def _after(order: list[str], backwards: bool, rows: QuerySet[Any], **values: Any) -> QuerySet[Any]:
    """Return the rows after a cursor, or before it if `backwards`: for example, (a, b) > (x, y).

    a and b are the columns of the order. x and y are the values of these columns in the cursor. A
    column is compared with `<` if it is read in descending order. The query can use an index.
    """
    condition = Q()
    for name, value in reversed(list(zip(order, values.values(), strict=True))):
        column = name.lstrip("-")
        beyond = "lt" if name.startswith("-") != backwards else "gt"
        if condition:
            # a >= x AND (a > x OR rest). The first half tells an index scan where to begin.
            condition = Q(**{f"{column}__{beyond}e": value}) & (
                Q(**{f"{column}__{beyond}": value}) | condition
            )
        else:
            condition = Q(**{f"{column}__{beyond}": value})
    return rows.filter(condition)


def _encode(order: list[str], row: dict[str, Any], *, backwards: bool) -> str:
    values = dumps([row[name.lstrip("-")] for name in order]).decode()
    return signer.sign_object([backwards, order, values], compress=False)


def _decode(cursor: str, order: list[str]) -> tuple[bool, list[Any]]:
    try:
        backwards, made_for, values = signer.unsign_object(cursor)
    except (signing.BadSignature, ValueError):
        raise refuse("cursor", _("This cursor was not issued by this API.")) from None
    if made_for != order:
        raise refuse("cursor", _("This cursor belongs to a list with a different ordering."))
    return backwards, orjson.loads(values)
