"""Triggers on tables of this app. PostgreSQL runs them, whichever code changes the tables."""

from bookings.transitions import TRANSITIONS
from bookit.database.constraints import Trigger
from bookit.database.versions import updated_at_trigger

_ALLOWED = ",\n        ".join(
    f"('{before}', '{after}')"
    for before, follow in sorted(TRANSITIONS.items())
    for after in sorted(follow)
)

# A booking changes its status only as `TRANSITIONS` allows, whichever code writes it.
BOOKING_TRANSITION = Trigger(
    name="booking_transition",
    body="""
BEGIN
    RAISE EXCEPTION 'a booking that is % cannot become %', OLD.status, NEW.status
    USING ERRCODE = 'check_violation', CONSTRAINT = 'booking_transition';
END
""",
    triggers={
        "booking_transition": f"""
BEFORE UPDATE ON {{table}} FOR EACH ROW WHEN (
    OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
        {_ALLOWED}
    )
)
""",
    },
)

# `bookings_occupancy` contains the time that slots, and bookings without a slot, occupy on their
# calendar, so that one exclusion constraint covers slots and bookings. ON CONFLICT DO NOTHING is
# used because plain INSERTs into a table with an exclusion constraint can deadlock.
BOOKING_OCCUPIES = Trigger(
    name="booking_occupies",
    body="""
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM bookings_occupancy WHERE calendar_id = OLD.calendar_id AND id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.active AND NEW.slot_id IS NULL THEN
        INSERT INTO bookings_occupancy (id, calendar_id, occupant, seat, blocked, expires_at)
        VALUES (NEW.id, NEW.calendar_id, NEW.service_id, NEW.seat, NEW.blocked,
            NEW.hold_expires_at)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the calendar has a slot at that time'
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'booking_beside_slots';
        END IF;
    END IF;
    RETURN NULL;
END
""",
    triggers={
        "booking_occupies": "AFTER INSERT OR DELETE ON {table} FOR EACH ROW",
        "booking_occupies_anew": """
            AFTER UPDATE ON {table} FOR EACH ROW WHEN (
                (OLD.id, OLD.calendar_id, OLD.service_id, OLD.slot_id, OLD.seat, OLD.blocked,
                    OLD.active, OLD.hold_expires_at)
                IS DISTINCT FROM
                (NEW.id, NEW.calendar_id, NEW.service_id, NEW.slot_id, NEW.seat, NEW.blocked,
                    NEW.active, NEW.hold_expires_at)
            )
        """,
    },
)

SLOT_OCCUPIES = Trigger(
    name="slot_occupies",
    body="""
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM bookings_occupancy WHERE calendar_id = OLD.calendar_id AND id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.status = 'scheduled' THEN
        INSERT INTO bookings_occupancy (id, calendar_id, occupant, blocked)
        VALUES (NEW.id, NEW.calendar_id, NEW.id, NEW.blocked)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the calendar has a slot or a booking at that time'
            USING ERRCODE = 'exclusion_violation', CONSTRAINT = 'slot_beside_bookings';
        END IF;
    END IF;
    RETURN NULL;
END
""",
    triggers={
        "slot_occupies": "AFTER INSERT OR DELETE ON {table} FOR EACH ROW",
        "slot_occupies_anew": """
            AFTER UPDATE ON {table} FOR EACH ROW WHEN (
                (OLD.id, OLD.calendar_id, OLD.blocked, OLD.status)
                IS DISTINCT FROM (NEW.id, NEW.calendar_id, NEW.blocked, NEW.status)
            )
        """,
    },
)

OCCUPANCY_IS_DERIVED = Trigger(
    name="occupancy_is_derived",
    body="""
BEGIN
    RAISE EXCEPTION 'bookings_occupancy cannot be changed directly: change the slot or the booking'
    USING ERRCODE = 'restrict_violation';
END
""",
    triggers={
        "occupancy_is_derived": """
            BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW
            WHEN (pg_trigger_depth() = 0)
        """,
    },
)

# As long as a waitlist entry is `waiting` or `offered`, its status follows the status of its user's
# booking in the slot. A booking that moves into the slot is not linked to the entry, because the
# booking may already be linked to an entry of its old slot. If staff on the waitlist hold a seat
# themselves and book it for another user, their own entry waits again. When a booking is deleted,
# its entry has no `booking_id` if PostgreSQL has executed the foreign key's SET NULL first.
WAITLIST_FOLLOWS = Trigger(
    name="waitlist_follows",
    body="""
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE bookings_waitlistentry
        SET status = 'passed', booking_id = NULL, updated_at = now()
        WHERE calendar_id = OLD.calendar_id AND slot_id = OLD.slot_id AND user_id = OLD.user_id
          AND status = 'offered' AND COALESCE(booking_id, OLD.id) = OLD.id;
    ELSIF NEW.active THEN
        IF TG_OP = 'UPDATE' AND OLD.user_id <> NEW.user_id THEN
            UPDATE bookings_waitlistentry
            SET status = 'waiting', booking_id = NULL, updated_at = NEW.updated_at
            WHERE calendar_id = OLD.calendar_id AND slot_id = OLD.slot_id
              AND user_id = OLD.user_id AND status = 'offered' AND booking_id = OLD.id;
        END IF;
        UPDATE bookings_waitlistentry
        SET status = CASE WHEN NEW.status = 'held' THEN 'offered' ELSE 'booked' END,
            booking_id = CASE WHEN TG_OP = 'INSERT' OR OLD.user_id <> NEW.user_id THEN NEW.id
                ELSE booking_id END,
            updated_at = NEW.updated_at
        WHERE calendar_id = NEW.calendar_id AND slot_id = NEW.slot_id AND user_id = NEW.user_id
          AND (status = 'waiting' OR status = 'offered' AND booking_id = NEW.id);
    ELSE
        UPDATE bookings_waitlistentry
        SET status = 'passed', updated_at = NEW.updated_at
        WHERE calendar_id = NEW.calendar_id AND slot_id = NEW.slot_id AND user_id = NEW.user_id
          AND status = 'offered' AND booking_id = NEW.id;
    END IF;
    RETURN NULL;
END
""",
    triggers={
        "waitlist_follows": "AFTER INSERT ON {table} FOR EACH ROW WHEN (NEW.slot_id IS NOT NULL)",
        "waitlist_follows_change": """
            AFTER UPDATE ON {table} FOR EACH ROW WHEN (
                NEW.slot_id IS NOT NULL
                AND (OLD.status, OLD.slot_id, OLD.user_id)
                    IS DISTINCT FROM (NEW.status, NEW.slot_id, NEW.user_id)
            )
        """,
        "waitlist_follows_end": """
            AFTER DELETE ON {table} FOR EACH ROW WHEN (OLD.slot_id IS NOT NULL)
        """,
    },
)

# An event is on the calendar of its booking, and its id and its time are later than those of all
# earlier events of the booking. Events of one booking are written one after another: whenever an
# event is written, its booking is locked or has just been created. The id comes from PostgreSQL's
# clock. If this id is not higher, because the clock has been corrected since or because another
# PostgreSQL server wrote the last event, the new event gets the next id after the last one. The
# time is that at which the request began. If the last event has a later time, because its request
# began later but was the first to lock the booking, or because the clocks of web hosts differ, the
# new event gets the next microsecond after that time.
#
# The last event is read at the end of the booking's part of the index `event_by_booking`, however
# many events there are. With BETWEEN, and the order by both columns, PostgreSQL can use no other
# index. Otherwise, if it has seen only a few bookings, it would read all events in the order of
# their ids. `enable_seqscan` and `enable_sort` are off because a session plans the query once. If
# the tables are nearly empty at that time, PostgreSQL would choose to read them whole, or to sort,
# and would still do so when one statement has written a million events.
EVENT_JOINS_HISTORY = Trigger(
    name="booking_event_joins_history",
    options="SET enable_seqscan = off SET enable_sort = off",
    body="""
DECLARE
    last record;
BEGIN
    SELECT event.id, event.at INTO last
    FROM bookings_booking AS booking LEFT JOIN LATERAL (
        SELECT id, at FROM bookings_bookingevent
        WHERE calendar_id = NEW.calendar_id
          AND booking_id BETWEEN NEW.booking_id AND NEW.booking_id
        ORDER BY booking_id DESC, id DESC LIMIT 1
    ) AS event ON true
    WHERE booking.calendar_id = NEW.calendar_id AND booking.id = NEW.booking_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the calendar does not have this booking'
        USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'event_on_calendar';
    END IF;
    IF NEW.id <= last.id THEN
        NEW.id := uuid7(uuid7_ticks(last.id) + 1);
    END IF;
    NEW.at := greatest(NEW.at, last.at + interval '1 microsecond');
    RETURN NEW;
END
""",
    triggers={
        "booking_event_joins_history": "BEFORE INSERT ON {table} FOR EACH ROW",
    },
)

# Events are never changed or deleted. Only a reason can be removed, because it can be personal data
# of a user who has deleted their account, or whose booking was deleted.
EVENT_IS_FINAL = Trigger(
    name="booking_event_is_final",
    body="""
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.data ? 'reason' THEN
        OLD.data := OLD.data - 'reason';
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'booking events are append-only' USING ERRCODE = 'restrict_violation';
END
""",
    triggers={
        "booking_event_append_only": "BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW",
    },
)

# Each statement that writes events enqueues one job that follows up all of these events. In a
# distributed database, all of them are on the server that runs the trigger, so `enqueue_beside` can
# get any of their calendars (`first`). Code that must not notify anybody, such as an import, sets
# `bookit.follow_up` to `off`.
EVENTS_ARE_FOLLOWED_UP = Trigger(
    name="booking_events_are_followed_up",
    body="""
DECLARE
    calendars jsonb;
    ids jsonb;
    first uuid;
BEGIN
    SELECT jsonb_agg(DISTINCT calendar_id), jsonb_agg(id ORDER BY id), (array_agg(calendar_id))[1]
    INTO calendars, ids, first FROM written;
    IF ids IS NOT NULL AND current_setting('bookit.follow_up', true) IS DISTINCT FROM 'off' THEN
        PERFORM enqueue_beside(
            first, 'default', 'bookings.follow_up',
            jsonb_build_object('calendar_ids', calendars, 'event_ids', ids)
        );
    END IF;
    RETURN NULL;
END
""",
    triggers={
        "booking_events_are_followed_up": """
            AFTER INSERT ON {table} REFERENCING NEW TABLE AS written FOR EACH STATEMENT
        """,
    },
)

SLOT_UPDATED_AT = updated_at_trigger("slot")
BOOKING_UPDATED_AT = updated_at_trigger("booking")
WAITLIST_UPDATED_AT = updated_at_trigger("waitlist")
# Only changes of these columns count. For example, deliveries also change `paused_until`, which
# the API does not show.
WEBHOOK_UPDATED_AT = updated_at_trigger(
    "webhook",
    columns=[
        *("owner_id", "url", "events", "is_active", "secret", "failing_since", "disabled_reason")
    ],
)
