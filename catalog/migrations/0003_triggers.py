from django.db import migrations

from bookit.database.constraints import Trigger

# These functions take a turn of a calendar, an advisory lock that ends with the transaction.
# Bookings share a turn, and a change of the calendar takes a turn alone (`catalog.turns`).
TURNS = """
CREATE FUNCTION calendar_share_turn(calendar_id uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock_shared(uuid_hash_extended(calendar_id, 0)) IS NOT NULL
$$;
CREATE FUNCTION calendar_take_turn(calendar_id uuid) RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(uuid_hash_extended(calendar_id, 0)) IS NOT NULL
$$;
"""
NO_TURNS = """
DROP FUNCTION calendar_take_turn;
DROP FUNCTION calendar_share_turn;
"""
# The first function returns the spellings of a word: the word itself, and the word with any one of
# its letters left out. The second function adds the words of a text to the dictionary. It adds them
# in order, so that two transactions with the same words cannot deadlock.
WORDS = """
CREATE FUNCTION catalog_spellings(word text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY(
        SELECT word UNION
        SELECT left(word, gone - 1) || substr(word, gone + 1)
        FROM generate_series(1, length(word)) AS gone
    )
$$;
CREATE FUNCTION catalog_learn(described text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO catalog_word (text, spellings)
    SELECT lexeme, catalog_spellings(lexeme) FROM unnest(to_tsvector('simple', described))
    WHERE lexeme ~ '^[[:alpha:]]{4,40}$'
        AND NOT EXISTS (SELECT FROM catalog_word WHERE text = lexeme)
    ORDER BY lexeme COLLATE "C"
    ON CONFLICT DO NOTHING
$$;
"""
NO_WORDS = """
DROP FUNCTION catalog_learn;
DROP FUNCTION catalog_spellings;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0002_constraints"),
    ]

    operations = [
        migrations.RunSQL(TURNS, NO_TURNS),
        migrations.RunSQL(WORDS, NO_WORDS),
        migrations.AddConstraint(
            model_name="calendar",
            constraint=Trigger(
                body="""
                    BEGIN
                        -- Saving a calendar as it was read must not put the version back.
                        NEW.version := greatest(NEW.version, OLD.version + (NEW.timezone <> OLD.timezone)::int);
                        RETURN NEW;
                    END
                """,
                name="calendar_version_rises",
                triggers={
                    "calendar_version_rises": """
                        BEFORE UPDATE ON {table} FOR EACH ROW
                        WHEN (NEW.version < OLD.version OR NEW.timezone <> OLD.timezone)
                    """
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="openinghours",
            constraint=Trigger(
                body="""
                    DECLARE
                        ids uuid[];
                        last timestamptz;
                    BEGIN
                        IF TG_OP <> 'INSERT' THEN
                            ids := ARRAY(SELECT calendar_id FROM removed);
                        END IF;
                        IF TG_OP <> 'DELETE' THEN
                            ids := ids || ARRAY(SELECT calendar_id FROM added);
                        END IF;
                        PERFORM calendar_take_turn(id)
                        FROM (SELECT DISTINCT unnest(ids) AS id ORDER BY id) AS changed;
                        SELECT max(updated_at) INTO last FROM (
                            SELECT updated_at FROM catalog_calendar WHERE id = ANY(ids) ORDER BY id FOR UPDATE
                        ) AS locked;
                        UPDATE catalog_calendar SET version = version + 1 WHERE id = ANY(ids);
                        RETURN NULL;
                    END
                """,
                name="opening_hours_change_version",
                triggers={
                    "opening_hours_added": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
                    "opening_hours_changed": """
                        AFTER UPDATE ON {table} REFERENCING OLD TABLE AS removed NEW TABLE AS added
                        FOR EACH STATEMENT
                    """,
                    "opening_hours_removed": "AFTER DELETE ON {table} REFERENCING OLD TABLE AS removed FOR EACH STATEMENT",
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="timeoff",
            constraint=Trigger(
                body="""
                    DECLARE
                        ids uuid[];
                        last timestamptz;
                    BEGIN
                        IF TG_OP <> 'INSERT' THEN
                            ids := ARRAY(SELECT calendar_id FROM removed);
                        END IF;
                        IF TG_OP <> 'DELETE' THEN
                            ids := ids || ARRAY(SELECT calendar_id FROM added);
                        END IF;
                        PERFORM calendar_take_turn(id)
                        FROM (SELECT DISTINCT unnest(ids) AS id ORDER BY id) AS changed;
                        SELECT max(updated_at) INTO last FROM (
                            SELECT updated_at FROM catalog_calendar WHERE id = ANY(ids) ORDER BY id FOR UPDATE
                        ) AS locked;
                        UPDATE catalog_calendar SET version = version + 1 WHERE id = ANY(ids);
                        RETURN NULL;
                    END
                """,
                name="time_off_change_version",
                triggers={
                    "time_off_added": "AFTER INSERT ON {table} REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
                    "time_off_changed": """
                        AFTER UPDATE ON {table} REFERENCING OLD TABLE AS removed NEW TABLE AS added
                        FOR EACH STATEMENT
                    """,
                    "time_off_removed": "AFTER DELETE ON {table} REFERENCING OLD TABLE AS removed FOR EACH STATEMENT",
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=Trigger(
                body="""
                    BEGIN
                        PERFORM calendar_take_turn(NEW.calendar_id);
                        UPDATE catalog_calendar SET version = version + 1 WHERE id = NEW.calendar_id;
                        RETURN NULL;
                    END
                """,
                name="service_terms_changed",
                triggers={
                    "service_terms_changed": """
                        AFTER UPDATE ON {table} FOR EACH ROW WHEN (
                            (OLD.is_active, OLD.mode, OLD.capacity, OLD.duration_minutes,
                                OLD.buffer_before_minutes, OLD.buffer_after_minutes, OLD.min_notice_minutes,
                                OLD.max_advance_days, OLD.requires_confirmation, OLD.price, OLD.currency)
                            IS DISTINCT FROM
                            (NEW.is_active, NEW.mode, NEW.capacity, NEW.duration_minutes,
                                NEW.buffer_before_minutes, NEW.buffer_after_minutes, NEW.min_notice_minutes,
                                NEW.max_advance_days, NEW.requires_confirmation, NEW.price, NEW.currency)
                        )
                    """
                },
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=Trigger(
                body="""
                    BEGIN
                        PERFORM catalog_learn(NEW.title || ' ' || NEW.description);
                        RETURN NULL;
                    END
                """,
                name="service_words_are_known",
                triggers={
                    "service_words_are_known": "AFTER INSERT OR UPDATE OF title, description ON {table} FOR EACH ROW"
                },
            ),
        ),
    ]
