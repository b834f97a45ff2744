"""Queries whose SQL the ORM writes once per process, and which run many times.

Turning a queryset into SQL is most of the cost of a small read, although the SQL is the same each
time. A `Prepared` query does this work once per process. Afterwards, a read only sends parameters
and receives plain rows. Because the ORM writes the SQL, the SQL always matches the models.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.db import DEFAULT_DB_ALIAS
from django.db.models import Field, Model, QuerySet, Value
from django.db.models.sql.compiler import SQLCompiler

from bookit.database.counts import MAX_COUNTED, bounded_count
from bookit.database.rows import fetch

Instance = TypeVar("Instance", bound=Model)


class Parameter(Value):
    """A placeholder in a queryset for a value that each run provides."""

    def __init__(self, name: str, output_field: "Field[Any, Any] | None") -> None:
        super().__init__(None, output_field=output_field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Return `%s`, with this object in place of the value."""
        return "%s", (self,)


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
        shape: Callable[[QuerySet[Instance, Any]], QuerySet[Instance, Any]] = lambda rows: rows,
        **fields: "Field[Any, Any]",
    ) -> None:
        self.queryset = build
        self._shape = shape
        self._places = {name: Parameter(name, field) for name, field in fields.items()}

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
        model = self._queryset.model
        instance = model.from_db(DEFAULT_DB_ALIAS, self.names[:width], row[:width])
        for name, position in self._annotations.items():
            setattr(instance, name, row[position])
        return instance

    @cached_property
    def _annotations(self) -> dict[str, int]:
        return self._compiler.annotation_col_map or {}

    @cached_property
    def _unshaped(self) -> QuerySet[Instance, Any]:
        return self.queryset(**self._places)

    @cached_property
    def _queryset(self) -> QuerySet[Instance, Any]:
        return self._shape(self._unshaped)

    @cached_property
    def _compiled(self) -> tuple[SQLCompiler, tuple[str, tuple[Any, ...]]]:
        # Cache the compiler only together with its SQL. Writing the SQL may query the server. If
        # that query failed and the compiler were cached, other threads would use the compiler with
        # the connection of this thread, and would always fail.
        compiler = self._queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        return compiler, compiler.as_sql()

    @property
    def _compiler(self) -> SQLCompiler:
        return self._compiled[0]

    @property
    def _text(self) -> tuple[str, tuple[Any, ...]]:
        return self._compiled[1]

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
        return self._text[0]

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The value of each `%s`, in order: a `Parameter`, or a constant."""
        return self._text[1]

    @property
    def order_by(self) -> Sequence[Any]:
        """The ordering, in the form of `QuerySet.query.order_by`."""
        return self._queryset.query.order_by

    @cached_property
    def _bare(self) -> tuple[str, tuple[Any, ...]]:
        bare = self._unshaped.order_by().values("pk").query.get_compiler(DEFAULT_DB_ALIAS)
        return bare.as_sql()

    @property
    def bare_text(self) -> str:
        """The SQL that selects the ids of the rows, in any order."""
        return self._bare[0]

    @property
    def bare_parameters(self) -> tuple[Any, ...]:
        """The value of each `%s` in `bare_text`, in order.

        `parameters` also has the values for the selected columns, which `bare_text` lacks.
        """
        return self._bare[1]

    @cached_property
    def count_text(self) -> str:
        """The SQL that counts the rows, up to `MAX_COUNTED` + 1."""
        rows = f"{self.bare_text} LIMIT {MAX_COUNTED + 1}"
        return f"SELECT count(*) FROM ({rows}) AS counted"  # noqa: S608 - the ORM wrote the SQL

    def run(self, text: str, values: Mapping[str, Any], *more: Any) -> list[tuple[Any, ...]]:
        """Run `text` with the query's parameters followed by `more`, and return the rows."""
        return fetch(text, [*_filled(self.parameters, values), *more])

    def run_bare(self, text: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run SQL that contains `bare_text`, with the parameters of `bare_text`; return rows."""
        return fetch(text, _filled(self.bare_parameters, values))

    def convert(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        """Return the rows with their values converted by the fields of the model."""
        if not self._converters:
            return rows
        return list(self._compiler.apply_converters(rows, self._converters))


class Bound:
    """A query with its values. Its rows are dictionaries. It can be sliced like a queryset."""

    count_is_exact = True

    def __init__(self, query: Prepared[Any], values: Mapping[str, Any]) -> None:
        self.query = query
        self.values = values

    def __getitem__(self, part: slice) -> list[dict[str, Any]]:
        """Return the rows from `part.start` up to, but not including, `part.stop`."""
        # The limit is part of the text. If it were a parameter, PostgreSQL would estimate a high
        # cost for a generic plan, and would plan the statement again each time. Planning takes
        # longer than running the statement.
        start = part.start or 0
        text = f"{self.query.text} LIMIT {part.stop - start:d}"
        rows = (
            self.query.run(f"{text} OFFSET %s", self.values, start)
            if start
            else self.query.run(text, self.values)
        )
        names = self.query.names
        return [dict(zip(names, row, strict=True)) for row in self.query.convert(rows)]

    def queryset(self) -> QuerySet[Any]:
        """Return the query as an ordinary queryset, which can be narrowed."""
        return self.query.queryset(**self.values)

    def first(self) -> dict[str, Any] | None:
        """Return the first row, or None."""
        rows = self[:1]
        return rows[0] if rows else None

    def count(self) -> int:
        """Return the number of rows, and set `count_is_exact`."""
        total, self.count_is_exact = bounded_count(
            lambda: int(self.query.run_bare(self.query.count_text, self.values)[0][0]),
            lambda: self.query.run_bare(
                f"EXPLAIN (FORMAT JSON) {self.query.bare_text}", self.values
            )[0][0],
        )
        return total


def _filled(parameters: Iterable[Any], values: Mapping[str, Any]) -> list[Any]:
    """Return `parameters`, with each `Parameter` replaced by its value."""
    return [values[each.name] if isinstance(each, Parameter) else each for each in parameters]
