"""Queries whose SQL the ORM writes once per process, and which run many times.

Turning a queryset into SQL is most of the cost of a small read, although the SQL is the same each
time. A `Prepared` query does this work once per process. Afterwards, a read only sends parameters
and receives plain rows. Because the ORM writes the SQL, the SQL always matches the models.

Filters, orders and pages are changes of a prepared query. The result of each change is a prepared
query too, and is kept. Therefore, a list that is filtered in the same way again, with other values,
costs little more than the plain list.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS
from django.db.models import BooleanField, F, Field, Func, IntegerField, Model, QuerySet, Value
from django.db.models.expressions import RawSQL
from django.db.models.sql.compiler import SQLCompiler

from bookit.database.counts import MAX_COUNTED, bounded_count, estimates, planned_rows
from bookit.database.rows import fetch

Instance = TypeVar("Instance", bound=Model)
Shape = Callable[[QuerySet[Any, Any]], QuerySet[Any, Any]]

# At most this many changed queries are kept, and as many queries with another shape. A query takes
# about 20 kB, and clients can combine filters in many ways. The query that has been unused for the
# longest time is dropped first.
MAX_KEPT = 250


class Parameter(Value):
    """A placeholder in a queryset for a value that each run provides."""

    def __init__(self, name: str, output_field: "Field[Any, Any] | None") -> None:
        super().__init__(None, output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Return `%s`, with this object in place of the value."""
        # A list, because Django 5.2 replaces the first value of a lookup such as `iexact` in place.
        return "%s", [self]


class AnyOf(Func):
    """Whether a column has one of the values of an array, which is a single parameter."""

    # Together: column = ANY(array)
    template = "%(expressions)s)"
    arg_joiner = " = ANY("
    output_field = BooleanField()


@dataclass(frozen=True)
class Change:
    """A change of a query, for example a filter or an order.

    Args:
        key: identifies the change. Changes of a query with equal keys must result in the same SQL.
        apply: a function that takes a queryset and, as keyword arguments, the values of the change,
            and returns the changed queryset.
        fields: for the name of each value, a model field that has the type of the value.
    """

    key: Any
    apply: Callable[..., QuerySet[Any, Any]] = field(compare=False)
    fields: Mapping[str, "Field[Any, Any]"] = field(compare=False, default_factory=dict)


class Prepared(Generic[Instance]):
    """A query without its values.

    Args:
        build: a function that takes the values as keyword arguments and returns the queryset.
        shape: a function that selects the columns of the queryset, as `RowSerializer.rows` does.
        fields: for the name of each value, a model field that has the type of the value.
    """

    def __init__(
        self,
        build: Callable[..., QuerySet[Instance, Any]],
        shape: Shape = lambda rows: rows,
        **fields: "Field[Any, Any]",
    ) -> None:
        self.queryset = build
        self.shape = shape
        self.fields = fields

    def __call__(self, **values: Any) -> "Bound":
        """Return the query with its values."""
        return Bound(self, values)

    def get(self, **values: Any) -> Instance | None:
        """Return the instance that the query finds, with only the selected columns, or None.

        As in Django, annotations become attributes of the instance.
        """
        rows = self.convert(self.run(self.text, values))
        if not rows:
            return None
        # The SQL selects the annotations after the columns of the model.
        row, width = rows[0], len(self.names) - len(self._annotations)
        instance = self.model.from_db(DEFAULT_DB_ALIAS, self.names[:width], row[:width])
        for name, position in self._annotations.items():
            setattr(instance, name, row[position])
        return instance

    @cached_property
    def model(self) -> type[Instance]:
        """The model of the rows."""
        return self._unshaped.model

    @cached_property
    def _annotations(self) -> dict[str, int]:
        return self._compiler.annotation_col_map or {}

    @property
    def _unshaped(self) -> QuerySet[Instance, Any]:
        return self.queryset(**{name: Parameter(name, each) for name, each in self.fields.items()})

    @cached_property
    def _compiled(self) -> tuple[SQLCompiler, tuple[str, tuple[Any, ...]]]:
        # Cache the compiler only together with its SQL. Writing the SQL may query the server. If
        # that query failed and the compiler were cached, other threads would use the compiler with
        # the connection of this thread, and would always fail.
        compiler = self.shape(self._unshaped).query.get_compiler(DEFAULT_DB_ALIAS)
        return compiler, compiler.as_sql()

    @property
    def _compiler(self) -> SQLCompiler:
        return self._compiled[0]

    @cached_property
    def _converters(self) -> Any:
        return self._compiler.get_converters([column for column, _, _ in self._compiler.select])

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [alias or column.target.attname for column, _, alias in self._compiler.select]

    @cached_property
    def text(self) -> str:
        """The SQL, with `%s` for each parameter."""
        return self._compiled[1][0]

    @cached_property
    def parameters(self) -> tuple[Any, ...]:
        """The value of each `%s`, in order: a `Parameter`, or a constant."""
        return self._compiled[1][1]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The columns that order the rows, with `-` for descending.

        If the list has cursors, no column may be nullable, because cursors compare their values.
        """
        return tuple(map(str, self._unshaped.query.order_by))

    def selecting(self, *columns: str) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL of some columns, without ORDER BY, and the value of each `%s`.

        Do not use `parameters` with this SQL: they include the values for the columns of the shape.
        """
        rows = self._unshaped.order_by()
        return rows.values(*columns).query.get_compiler(DEFAULT_DB_ALIAS).as_sql()

    @cached_property
    def bare(self) -> tuple[str, tuple[Any, ...]]:
        """The SQL that selects the ids of the rows, in any order, and the value of each `%s`."""
        return self.selecting("pk")

    @cached_property
    def count_text(self) -> str:
        """The SQL that counts the rows, up to `MAX_COUNTED` + 1."""
        rows = f"{self.bare[0]} LIMIT {MAX_COUNTED + 1}"
        return f"SELECT count(*) FROM ({rows}) AS counted"  # noqa: S608 - the ORM wrote the SQL

    def run(self, text: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run `text`, which contains the SQL of the query, with its parameters; return the rows."""
        return fetch(text, filled(self.parameters, values))

    def run_bare(self, text: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run `text`, which contains the SQL of `bare`, with its parameters; return the rows."""
        return fetch(text, filled(self.bare[1], values))

    def convert(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        """Return the rows with their values converted by the fields of the model."""
        if not self._converters:
            return rows
        return list(self._compiler.apply_converters(rows, self._converters))


class Bound:
    """A query with its values. A slice, which needs an end, returns the rows as dictionaries."""

    count_is_exact = True

    def __init__(self, query: Prepared[Any], values: Mapping[str, Any]) -> None:
        self.query = query
        self.values = values

    def changed(self, change: Change, **values: Any) -> "Bound":
        """Return the query with a change, and with the values of that change."""
        return Bound(_changed(self.query, change), {**self.values, **values})

    def shaped(self, shape: Shape) -> "Bound":
        """Return the query with the columns that `shape` selects."""
        return Bound(_shaped(self.query, shape), self.values)

    def ordered(self, order: tuple[str, ...]) -> "Bound":
        """Return the query with its rows ordered by columns, with `-` for descending.

        Rows without a value come last.
        """
        return self.changed(Change(("order", order), lambda rows: _ordered(rows, order)))

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        """Return the rows from `part.start` up to, but not including, `part.stop`."""
        # The limit is part of the text. If it were a parameter, PostgreSQL would estimate a high
        # cost for a generic plan, and would plan the statement again each time. Planning takes
        # longer than running the statement.
        start = part.start or 0
        limit = part.stop - start
        page = self
        if start:
            skip = Change(("skip", limit), partial(_skip, limit), {"start": IntegerField()})
            page = self.changed(skip, start=start)
        query = page.query
        rows = query.run(f"{query.text} LIMIT {limit:d}", page.values)
        names = query.names
        return [dict(zip(names, row, strict=True)) for row in query.convert(rows)]

    def queryset(self) -> QuerySet[Any]:
        """Return the query as an ordinary queryset, without its shape."""
        return self.query.queryset(**self.values)

    def first(self) -> dict[str, Any] | None:
        """Return the first row, or None."""
        rows = self[:1]
        return rows[0] if rows else None

    def count(self) -> int:
        """Return the number of rows, or an estimate if it is large, and set `count_is_exact`."""
        text, parameters = self.query.bare
        # Queries whose filters differ only in constants have the same `text`. Therefore, `values`
        # contains the constants, too.
        values = filled(parameters, self.values)
        recent = estimates.recent(text, values)
        if recent is not None:
            self.count_is_exact = False
            return recent
        total, self.count_is_exact = bounded_count(
            lambda: int(self.query.run_bare(self.query.count_text, self.values)[0][0]),
            lambda: planned_rows(
                self.query.run_bare(f"EXPLAIN (FORMAT JSON) {text}", self.values)[0][0]
            ),
        )
        if not self.count_is_exact:
            estimates.keep(text, values, total)
        return total


def nullable_fields(model: type[Model]) -> set[str]:
    """Return the names of the fields that can be null. Only these fields need NULLS LAST.

    In PostgreSQL, nulls come first in a descending order. They also come first in an ordinary index
    that is read backwards, so PostgreSQL cannot use that index for DESC NULLS LAST.
    """
    # A GeneratedField can be null if its `output_field` can.
    fields = model._meta.fields
    return {each.name for each in fields if getattr(each, "output_field", each).null}


def _ordered(rows: QuerySet[Any, Any], order: tuple[str, ...]) -> QuerySet[Any, Any]:
    nullable = nullable_fields(rows.model)
    return rows.order_by(
        *(
            (F(name[1:]).desc(nulls_last=True) if name[0] == "-" else F(name).asc(nulls_last=True))
            if name.lstrip("-") in nullable
            else name
            for name in order
        )
    )


@lru_cache(MAX_KEPT)
def _changed(query: Prepared[Any], change: Change) -> Prepared[Any]:
    def build(**values: Any) -> QuerySet[Any, Any]:
        own = {name: values.pop(name) for name in change.fields}
        return change.apply(query.queryset(**values), **own)

    return Prepared(build, query.shape, **query.fields, **change.fields)


@lru_cache(MAX_KEPT)
def _shaped(query: Prepared[Any], shape: Shape) -> Prepared[Any]:
    return Prepared(query.queryset, shape, **query.fields)


def _skip(limit: int, rows: QuerySet[Any, Any], start: Any) -> QuerySet[Any, Any]:
    """Return the `limit` rows that follow the first `start` rows.

    PostgreSQL computes every column of the rows that it skips, even the free seats of slots.
    Therefore, a subquery that selects only ids skips the rows.
    """
    text, parameters = rows.values("pk").query.get_compiler(DEFAULT_DB_ALIAS).as_sql()
    page = f"{text} LIMIT {limit:d} OFFSET %s"
    ids = RawSQL(page, [*parameters, start])  # noqa: S611 - the ORM wrote it
    return rows.filter(pk__in=ids)


def filled(parameters: Iterable[Any], values: Mapping[str, Any]) -> list[Any]:
    """Return `parameters`, with each `Parameter` replaced by its value."""
    return [values[each.name] if isinstance(each, Parameter) else each for each in parameters]
