from django.db import migrations

FUNCTIONS = """
CREATE FUNCTION calendar_share_turn(calendar_id uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock_shared(uuid_hash_extended(calendar_id, 0)) IS NOT NULL
$$;
CREATE FUNCTION calendar_take_turn(calendar_id uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(uuid_hash_extended(calendar_id, 0)) IS NOT NULL
$$;
"""
# As in 0003, but that they take a turn first.
OPENING = """
CREATE OR REPLACE FUNCTION calendar_opening_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        ids := ARRAY(SELECT calendar_id FROM removed);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        ids := ids || ARRAY(SELECT calendar_id FROM added);
    END IF;
    {turn}
    UPDATE catalog_calendar SET version = version + 1 WHERE id IN (
        SELECT id FROM catalog_calendar WHERE id = ANY(ids) ORDER BY id FOR UPDATE
    );
    RETURN NULL;
END $$;
"""
TERMS = """
CREATE OR REPLACE FUNCTION service_terms_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {turn}
    UPDATE catalog_calendar SET version = version + 1 WHERE id = NEW.calendar_id;
    RETURN NULL;
END $$;
"""


class Migration(migrations.Migration):
    """A change of a calendar gets its turn while bookings keep coming, see `catalog.turns`."""

    dependencies = [("catalog", "0005_currencies")]

    operations = [
        migrations.RunSQL(
            FUNCTIONS
            + OPENING.format(
                turn="""PERFORM calendar_take_turn(id) FROM (
        SELECT DISTINCT unnest(ids) AS id ORDER BY id
    ) AS changed;"""
            )
            + TERMS.format(turn="PERFORM calendar_take_turn(NEW.calendar_id);"),
            OPENING.format(turn="")
            + TERMS.format(turn="")
            + """
            DROP FUNCTION calendar_take_turn(uuid);
            DROP FUNCTION calendar_share_turn(uuid);
            """,
        ),
    ]
