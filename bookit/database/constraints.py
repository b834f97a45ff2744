"""Kinds of constraints that Django lacks, declared on models like any other constraint.

Each kind is a `django.db.models.BaseConstraint`, so `makemigrations` writes it into a migration and
notices when the model and the migration differ. Only the database enforces these constraints.
"""

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any

from django.db.backends.ddl_references import Statement
from django.db.models import BaseConstraint


class _DatabaseConstraint(BaseConstraint):
    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        """Add the constraint of a new table at the end of the migration.

        The constraint may refer to tables that are created later in the migration.
        """
        schema_editor.deferred_sql.append(self.create_sql(model, schema_editor))
        return None

    def validate(self, model: Any, instance: Any, exclude: Any = None, using: Any = None) -> None:
        """Do nothing: the database enforces the constraint."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.deconstruct() == self.deconstruct()

    __hash__ = None  # type: ignore[assignment]


class Trigger(_DatabaseConstraint):
    """A function in PL/pgSQL, and the triggers of the model's table that execute it.

    Args:
        name: the name of the function.
        body: the body of the function, from `DECLARE` or `BEGIN` to `END`.
        triggers: the event and condition of each trigger by its name, for example
            `AFTER INSERT ON {table} FOR EACH ROW WHEN (NEW.is_active)`.
        options: clauses of CREATE FUNCTION, for example `SET enable_seqscan = off`.
    """

    def __init__(
        self, *, name: str, body: str, triggers: Mapping[str, str], options: str = ""
    ) -> None:
        super().__init__(name=name)
        self.options = options
        # Indentation in the source does not count as a change.
        self.body = cleandoc(body)
        self.triggers = {name: cleandoc(when) for name, when in triggers.items()}

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration needs to create the constraint."""
        path, arguments, keywords = super().deconstruct()
        keywords |= {"body": self.body, "triggers": self.triggers}
        if self.options:
            keywords["options"] = self.options
        return path, arguments, keywords

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        """Create the function and its triggers, except the last trigger.

        Return the statement that creates the last trigger, which Django executes. Citus cannot send
        several statements to other servers at once, so each statement is executed on its own.
        """
        *others, last = self._statements(model, schema_editor)
        for each in others:
            schema_editor.execute(each, params=None)
        return last

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        """Create the function and its triggers on a new table at the end of the migration."""
        schema_editor.deferred_sql += self._statements(model, schema_editor)

    def _statements(self, model: Any, schema_editor: Any) -> list[Statement]:
        table = schema_editor.quote_name(model._meta.db_table)
        head = f"CREATE FUNCTION {self.name}() RETURNS trigger LANGUAGE plpgsql {self.options}"
        function = f"{head.strip()} AS $$\n{self.body}\n$$"
        triggers = [
            f"CREATE TRIGGER {name} {when.format(table=table)} EXECUTE FUNCTION {self.name}()"
            for name, when in self.triggers.items()
        ]
        return [*map(_statement, (function, *triggers))]

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        """Remove the triggers, and return the statement that removes their function.

        In a distributed database, the triggers of shards run copies of the function, so DROP
        FUNCTION ... CASCADE would not remove them.
        """
        table = schema_editor.quote_name(model._meta.db_table)
        for name in self.triggers:
            schema_editor.execute(_statement(f"DROP TRIGGER {name} ON {table}"), params=None)
        return _statement(f"DROP FUNCTION {self.name}()")


class CompositeForeignKey(_DatabaseConstraint):
    """A foreign key over several columns. The columns that it refers to must be unique together.

    Args:
        fields: the fields of the model.
        to: the model to which the foreign key refers, as `app.Model`.
        to_fields: the fields of that model, in the same order.
        on_delete: what PostgreSQL does when the row of that model is deleted, for example
            `CASCADE`, or `SET NULL ({booking})` to empty only the column of the field `booking`. By
            default, PostgreSQL refuses to delete the row.
    """

    def __init__(
        self,
        *,
        name: str,
        fields: Sequence[str],
        to: str,
        to_fields: Sequence[str],
        on_delete: str = "NO ACTION",
    ) -> None:
        super().__init__(name=name)
        self.fields, self.to, self.to_fields = tuple(fields), to, tuple(to_fields)
        self.on_delete = on_delete

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        """Return what a migration needs to create the constraint."""
        path, arguments, keywords = super().deconstruct()
        keywords |= {"fields": self.fields, "to": self.to, "to_fields": self.to_fields}
        if self.on_delete != "NO ACTION":
            keywords["on_delete"] = self.on_delete
        return path, arguments, keywords

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        """Return the statement that creates the constraint."""
        to = model._meta.apps.get_model(self.to)
        table, columns = _table_and_columns(model, self.fields, schema_editor)
        to_table, to_columns = _table_and_columns(to, self.to_fields, schema_editor)
        on_delete = self.on_delete.format(
            **{name: model._meta.get_field(name).column for name in self.fields}
        )
        return _statement(
            f"ALTER TABLE {table} ADD CONSTRAINT {self.name} FOREIGN KEY ({columns})"
            f" REFERENCES {to_table} ({to_columns}) ON DELETE {on_delete}"
        )

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        """Return the statement that removes the constraint."""
        table = schema_editor.quote_name(model._meta.db_table)
        return _statement(f"ALTER TABLE {table} DROP CONSTRAINT {self.name}")


def _table_and_columns(model: Any, fields: Sequence[str], schema_editor: Any) -> tuple[str, str]:
    columns = [model._meta.get_field(name).column for name in fields]
    quoted = [schema_editor.quote_name(name) for name in columns]
    return schema_editor.quote_name(model._meta.db_table), ", ".join(quoted)


def _statement(text: str) -> Statement:
    return Statement(text.replace("%", "%%"))
