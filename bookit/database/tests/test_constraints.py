"""Triggers and composite foreign keys that are declared on models."""

import re

import pytest
from django.apps import apps
from django.db import DatabaseError, IntegrityError, connection, models, transaction
from django.db.migrations import AddConstraint, Migration, RemoveConstraint
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.test.utils import isolate_apps

from accounts import triggers
from accounts.models import User
from bookit.database.constraints import CompositeForeignKey, Trigger
from bookit.runtime.startup import BASE_DIR

pytestmark = pytest.mark.django_db


def names_of_triggers(table):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
            [table],
        )
        return {name for (name,) in cursor.fetchall()}


def drift(change):
    """Return the operations of the migration for a `change` of the trigger `SESSIONS_END`."""
    declared = ProjectState.from_apps(apps)
    options = declared.models["accounts", "user"].options
    options["constraints"] = [
        change(each) if each == triggers.SESSIONS_END else each for each in options["constraints"]
    ]
    loader = MigrationLoader(connection)
    changes = MigrationAutodetector(loader.project_state(), declared).changes(loader.graph)
    [migration] = changes.get("accounts") or [Migration("none", "accounts")]
    return migration.operations


def rewritten(trigger, **changes):
    _, _, options = trigger.deconstruct()
    return Trigger(**{**options, **changes})


@pytest.mark.parametrize(
    "changes", [{"body": "BEGIN RETURN NULL; END"}, {"triggers": {"other": "AFTER UPDATE"}}]
)
def test_a_trigger_that_differs_from_its_migration_is_noticed(changes):
    removed, added = drift(lambda trigger: rewritten(trigger, **changes))
    assert isinstance(removed, RemoveConstraint)
    assert isinstance(added, AddConstraint)
    assert {name: getattr(added.constraint, name) for name in changes} == changes


def test_a_trigger_with_different_indentation_needs_no_migration():
    body = triggers.SESSIONS_END.body.replace("\n", "\n        ")
    assert drift(lambda trigger: rewritten(trigger, body=f"\n        {body}\n    ")) == []


def test_a_trigger_can_be_removed_and_added_again():
    table = User._meta.db_table
    with connection.schema_editor() as editor:
        editor.remove_constraint(User, triggers.SESSIONS_END)
    assert "user_sessions_end" not in names_of_triggers(table)
    with connection.schema_editor() as editor:
        editor.add_constraint(User, triggers.SESSIONS_END)
    assert "user_sessions_end" in names_of_triggers(table)


@isolate_apps("bookit.jobs")
def test_a_model_is_created_with_its_triggers_and_foreign_keys():
    """The body of the trigger contains `%`, which Django must not take for a placeholder."""

    class Room(models.Model):  # noqa: DJ008 - nothing shows its rows
        floor = models.IntegerField()

        class Meta:
            app_label = "jobs"
            constraints = [models.UniqueConstraint(fields=["id", "floor"], name="room_floor")]

    class Desk(models.Model):  # noqa: DJ008 - nothing shows its rows
        room = models.ForeignKey(Room, models.CASCADE, db_constraint=False)
        floor = models.IntegerField()

        class Meta:
            app_label = "jobs"
            constraints = [
                CompositeForeignKey(
                    name="desk_floor",
                    fields=["room", "floor"],
                    to="jobs.Room",
                    to_fields=["id", "floor"],
                ),
                Trigger(
                    name="desk_is_even",
                    body="""
                        BEGIN
                            IF NEW.id % 2 = 1 THEN
                                RAISE '100 % odd', '%';
                            END IF;
                            RETURN NEW;
                        END
                    """,
                    triggers={"desk_is_even": "BEFORE INSERT ON {table} FOR EACH ROW"},
                ),
            ]

    with connection.schema_editor() as editor:
        editor.create_model(Room)
        editor.create_model(Desk)
    room = Room.objects.create(floor=1)
    Desk.objects.create(pk=2, room=room, floor=1)
    with pytest.raises(IntegrityError, match="desk_floor"), transaction.atomic():
        Desk.objects.create(pk=4, room=room, floor=2)
    with pytest.raises(DatabaseError, match="100 % odd"), transaction.atomic():
        Desk.objects.create(pk=3, room=room, floor=1)
    Desk(pk=5, room=room, floor=2).full_clean()  # Only the database enforces the constraints.


def test_only_the_enqueue_migration_names_functions_of_procrastinate():
    """Minor releases of procrastinate replace these functions with new versions."""
    naming = {
        str(path.relative_to(BASE_DIR))
        for package in ("bookit", "accounts", "catalog", "bookings", "reviews")
        for path in (BASE_DIR / package).rglob("*.py")
        if re.search(r"procrastinate_\w+_v\d", path.read_text()) and "tests" not in path.parts
    }
    assert naming == {"bookit/jobs/migrations/0001_enqueue.py"}
