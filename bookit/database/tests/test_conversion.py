"""The functions that each shard of a distributed database has. These tests do not need Citus."""

import pytest
from django.db import connection
from psycopg.rows import dict_row

from bookit.database.citus import conversion
from bookit.database.rows import fetch

FUNCTION = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM
        bookings_booking WHERE id = NEW.id;
    RETURN NULL;
END
$$
"""
TRIGGER = """
CREATE TRIGGER {name} AFTER INSERT ON bookings_booking FOR EACH ROW EXECUTE FUNCTION {name}()
"""
SHARD = {"shard": 102008, "table": "bookings_booking", "name": "bookings_booking_102008"}


@pytest.fixture
def shards(db, monkeypatch):
    """Return a function that creates a trigger, and returns `_Shards` with one shard: `SHARD`."""

    def shards(name):
        with connection.cursor() as cursor:
            cursor.execute(FUNCTION.format(name=name))
            cursor.execute(TRIGGER.format(name=name))
        triggers = fetch(conversion._TRIGGERS, {"tables": ["bookings_booking"]}, dict_row)
        assert name in {trigger["name"] for trigger in triggers}

        def answer(query, parameters, row_factory):
            if query == conversion._SHARDS:
                return [SHARD]
            # `SHARD` has no other table, so leave out the triggers of other tables.
            tables = {**parameters, "tables": ["bookings_booking"]}
            return fetch(query, tables, row_factory)

        monkeypatch.setattr(conversion, "fetch", answer)
        return conversion._Shards()

    return shards


def test_a_table_name_after_a_line_break_is_replaced_by_the_name_of_the_shard(shards):
    steps = {step.words: step for step in shards("count_again").functions()}
    [copy] = steps["count_again(): a copy for each shard"].statements
    text = copy.as_string(None)
    assert "FUNCTION public.count_again_102008()" in text
    assert "FROM\n        bookings_booking_102008 WHERE" in text


def test_a_name_that_postgresql_would_shorten_is_refused(shards):
    shards("f" * 56)  # With the suffix `_102008`, this is a name of 63 bytes.
    with pytest.raises(conversion.CannotDistribute, match="has more than 63 bytes"):
        shards("g" * 57)
