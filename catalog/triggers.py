"""The triggers of the catalog. They act on changes by the API, the admin site and raw SQL alike.

A change to the terms of a service (the columns on which bookings depend) raises the version of its
calendar. So does a change to the opening hours, time off or time zone of the calendar. BookIt
inserts a booking only if the version is still the one that was read with the terms (see
`bookings.availability.terms`). If one statement changes the opening hours or time off of several
calendars, the trigger locks the calendars in the order of their ids, to avoid deadlocks.
"""

from bookit.database.constraints import Trigger
from bookit.database.versions import updated_at_trigger

# Raises the version of a calendar if its time zone changes, and prevents the version from falling.
VERSION_RISES = Trigger(
    name="calendar_version_rises",
    body="""
BEGIN
    -- Saving a calendar as it was read must not put the version back.
    NEW.version := greatest(NEW.version, OLD.version + (NEW.timezone <> OLD.timezone)::int);
    RETURN NEW;
END
""",
    triggers={
        "calendar_version_rises": """
            BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (NEW.version < OLD.version OR NEW.timezone <> OLD.timezone)
        """,
    },
)


def _opening_changes(prefix: str, *, assignments: str = "") -> Trigger:
    """Return a trigger for the table of opening hours or the table of time off.

    The trigger raises the version of each calendar whose rows are added, changed or removed.

    Args:
        prefix: the prefix of the names of the function and of its triggers.
        assignments: SQL that assigns values to further columns of the calendar; it begins with a
            comma. `last` is the time of the last change of any of the calendars. The values must
            not be computed from columns: Citus refuses an UPDATE that passes a column to a function
            that is not immutable.
    """
    return Trigger(
        name=f"{prefix}_change_version",
        body=f"""
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
    UPDATE catalog_calendar SET version = version + 1{assignments} WHERE id = ANY(ids);
    RETURN NULL;
END
""",  # noqa: S608 - only our own SQL is interpolated, no values
        triggers={
            f"{prefix}_added": """
                AFTER INSERT ON {table} REFERENCING NEW TABLE AS added FOR EACH STATEMENT
            """,
            f"{prefix}_changed": """
                AFTER UPDATE ON {table} REFERENCING OLD TABLE AS removed NEW TABLE AS added
                FOR EACH STATEMENT
            """,
            f"{prefix}_removed": """
                AFTER DELETE ON {table} REFERENCING OLD TABLE AS removed FOR EACH STATEMENT
            """,
        },
    )


# The API shows opening hours as a part of their calendar, so changing them also changes the
# calendar's `updated_at`.
HOURS_CHANGE_VERSION = _opening_changes(
    "opening_hours",
    assignments=", updated_at = greatest(now(), last + interval '1 microsecond')",
)
TIME_OFF_CHANGES_VERSION = _opening_changes("time_off")

# Raises the version of a calendar if the terms of a service change.
#
# Ratings and texts are not terms. The service's calendar is not a term either: if the service moves
# to another calendar while somebody books it, the foreign key of bookings refuses the booking,
# because that key covers both the service and the calendar. `step_minutes` and
# `cancellation_notice_minutes` are not terms either, because inserting a booking does not depend on
# them.
TERMS_CHANGE_VERSION = Trigger(
    name="service_terms_changed",
    body="""
BEGIN
    PERFORM calendar_take_turn(NEW.calendar_id);
    UPDATE catalog_calendar SET version = version + 1 WHERE id = NEW.calendar_id;
    RETURN NULL;
END
""",
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
        """,
    },
)

# The characters between two words, as a class of a regular expression. It means the same in
# PostgreSQL and in Python, so services and searches are divided into the same words. PostgreSQL's
# text search alone would not find `colour` in `Cut/Colour`, because it takes this text for the name
# of a file. In a database with the locale C, it also takes a typographic apostrophe or dash for a
# letter. The ranges are code points, so they do not depend on the locale. They contain accents that
# follow their letter, punctuation, currencies, symbols, emoji, and everything in ASCII and Latin-1
# except letters and numbers.
DIVIDERS = (
    r"\u0001-/:-@\u005B-`{-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7"
    r"\u0300-\u036F\u037E\u0387\u05BE\u05F3\u05F4\u060C\u061B\u061F\u0964\u0965\u1680"
    r"\u2000-\u206F\u20A0-\u20CF\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118"
    r"\u211E-\u2123\u2125\u2127\u2129\u212E\u213A\u213B\u2140-\u2144\u214A-\u214D\u214F"
    r"\u2190-\u2BFF\u2E00-\u2E2E\u2E30-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u303D-\u303F"
    r"\u30A0\u30FB\uFE00-\uFE6F\uFEFF\uFF00-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65"
    r"\U0001F000-\U0001FAFF"
)

# Adds the words of a service's title and description to the dictionary (`Word`), in which a search
# looks up misspelt words. `catalog_learn` keeps only words of 4 to 40 letters, without digits.
WORDS_ARE_KNOWN = Trigger(
    name="service_words_are_known",
    body=rf"""
BEGIN
    PERFORM catalog_learn(
        regexp_replace(NEW.title || ' ' || NEW.description, '[{DIVIDERS}]+', ' ', 'g')
    );
    RETURN NULL;
END
""",
    triggers={
        "service_words_are_known": """
            AFTER INSERT OR UPDATE OF title, description ON {table} FOR EACH ROW
        """,
    },
)

CALENDAR_UPDATED_AT = updated_at_trigger(
    "calendar", columns=["name", "timezone", "provider_id", "metadata"]
)
SERVICE_UPDATED_AT = updated_at_trigger("service")

# Counts the active services of each category (`catalog.categories.models.Category`).
#
# A statement writes the categories in the order of their names, so that two statements with the
# same categories cannot deadlock. These triggers run once per statement, after
# `service_terms_changed`, which runs for each row. So an update takes the turn of the calendar
# before it locks a category.
CATEGORIES_ARE_COUNTED = Trigger(
    name="service_categories_are_counted",
    body="""
DECLARE
    gained text[];
    lost text[];
BEGIN
    IF TG_OP <> 'DELETE' THEN
        gained := ARRAY(SELECT category FROM added WHERE is_active AND category <> '');
    END IF;
    IF TG_OP <> 'INSERT' THEN
        lost := ARRAY(SELECT category FROM removed WHERE is_active AND category <> '');
    END IF;
    IF gained IS NOT DISTINCT FROM lost THEN
        RETURN NULL;
    END IF;
    INSERT INTO catalog_category AS known (name, active_services)
    SELECT name, sum(change) FROM (
        SELECT unnest(gained) AS name, 1 AS change UNION ALL SELECT unnest(lost), -1
    ) AS changes
    GROUP BY name HAVING sum(change) <> 0 ORDER BY name
    ON CONFLICT (name) DO UPDATE SET
        active_services = known.active_services + EXCLUDED.active_services;
    RETURN NULL;
END
""",
    triggers={
        "service_categories_added": """
            AFTER INSERT ON {table} REFERENCING NEW TABLE AS added FOR EACH STATEMENT
        """,
        "service_categories_changed": """
            AFTER UPDATE ON {table} REFERENCING OLD TABLE AS removed NEW TABLE AS added
            FOR EACH STATEMENT
        """,
        "service_categories_removed": """
            AFTER DELETE ON {table} REFERENCING OLD TABLE AS removed FOR EACH STATEMENT
        """,
    },
)
