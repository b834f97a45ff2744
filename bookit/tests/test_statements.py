"""Each SQL statement that is a constant has a header, and PostgreSQL can prepare its text."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection

from bookit.tests.cluster import Cluster

ROOT = Path(settings.BASE_DIR)
# The first words of the statements that PostgreSQL can prepare.
STATEMENT = re.compile(r"\s*(SELECT|WITH|INSERT INTO|UPDATE|DELETE FROM|MERGE INTO)\s")
PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement(NamedTuple):
    """A module-level constant with the text of a statement, and the comment above it."""

    name: str
    header: str
    text: str


def modules() -> Iterator[Path]:
    """Yield the modules of BookIt's packages, without tests and migrations."""
    for app in apps.get_app_configs():
        if Path(app.path).parent != ROOT:
            continue
        for path in sorted(Path(app.path).rglob("*.py")):
            if not {"tests", "migrations"} & {*path.parts}:
                yield path


def header_above(lines: list[str], number: int) -> str:
    """Return the comment lines directly above line `number`. The first line has the number 1."""
    first = number - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return "\n".join(lines[first : number - 1])


def statements() -> Iterator[Statement]:
    """Yield all statements of the project that are constants."""
    for path in modules():
        source = path.read_text()
        for node in ast.parse(source).body:
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
                continue
            if not isinstance(node.value, ast.Constant | ast.JoinedStr):
                continue
            name = node.targets[0].id
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            text = literal(node.value) or ""
            if STATEMENT.match(text):
                value = getattr(import_module(module), name)
                yield Statement(
                    f"{module}.{name}", header_above(source.splitlines(), node.lineno), value
                )


def literal(node: ast.AST) -> str | None:
    """Return the text of a string, or the text that an f-string begins with; otherwise, None."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


ALL = [*statements()]


def prepared(text: str) -> str:
    """Return the text with `$1`, `$2` and so on in place of its named parameters."""
    names = [*dict.fromkeys(PARAMETER.findall(text))]
    return PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text).replace("%%", "%")


@pytest.mark.parametrize("statement", ALL, ids=lambda each: each.name)
def test_a_statement_has_a_header(statement: Statement) -> None:
    lines = [line.removeprefix("#").strip() for line in statement.header.splitlines()]

    assert lines, "The statement needs a comment above it that says what it does."
    assert any(line.startswith("Parameters: ") for line in lines)
    assert any(line.startswith("Columns: ") for line in lines)
    # A header may refer to the header of another statement.
    siblings = {each.name.rpartition(".")[2]: each.header for each in ALL}
    header = statement.header
    for name in re.findall(r"as in (\w+)", header):
        header += siblings[name]
    missing = {
        name for name in PARAMETER.findall(statement.text) if not re.search(rf"\b{name}\b", header)
    }
    assert not missing, "The header must name each parameter."


@pytest.mark.django_db
@pytest.mark.parametrize("statement", ALL, ids=lambda each: each.name)
def test_postgresql_accepts_the_text_of_a_statement(statement: Statement) -> None:
    if re.search(r"needs\s+(#\s+)?Citus", statement.header) and not Cluster.running():
        pytest.skip("needs Citus: pytest --citus PREFIX")
    assert "%s" not in statement.text, "Parameters must have names."

    with connection.cursor() as cursor:
        cursor.cursor.connection.execute(
            f"PREPARE pasted AS {prepared(statement.text)}", prepare=False
        )
        cursor.execute("DEALLOCATE pasted")


def test_statements_are_found_in_every_package_with_sql() -> None:
    packages = {statement.name.split(".")[0] for statement in ALL}

    assert packages == {"accounts", "bookings", "bookit", "catalog", "reviews"}
