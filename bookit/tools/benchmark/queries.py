"""The SQL of the measured requests, as BookIt sends it, for those who do without BookIt.

What `log_statement = all` shows of BookIt is what stands here: the same rows, columns, order and
counts. Where the two differ, the reference is measured with the wrong thing: change this file.
"""

SIGNED_IN = """
SELECT password, last_login, id, name, email, role, timezone, is_active, created_at
FROM accounts_user WHERE is_active AND id = %(user_id)s
"""

_SERVICE = """
SELECT service.id, title, description, price, currency, duration_minutes, capacity, mode,
    requires_confirmation, buffer_before_minutes, buffer_after_minutes, min_notice_minutes,
    max_advance_days, cancellation_notice_minutes, step_minutes, category, is_active, calendar_id,
    provider_id, rating_average, rating_count, service.created_at
FROM catalog_service AS service JOIN catalog_calendar AS calendar ON calendar.id = calendar_id
"""
SERVICE = _SERVICE + "WHERE service.id = %(service_id)s"
SERVICES = _SERVICE + "WHERE is_active ORDER BY title, service.id LIMIT 20"
SERVICES_COUNT = "SELECT count(*) AS count FROM catalog_service WHERE is_active"

BOOKINGS = """
SELECT id, user_id, service_id, calendar_id, slot_id, seat, start_time, end_time, status,
    attendee_name, attendee_email, notes, price, currency, hold_expires_at, created_at, updated_at
FROM bookings_booking WHERE user_id = %(user_id)s ORDER BY start_time, id LIMIT 20
"""
BOOKINGS_COUNT = "SELECT count(*) AS count FROM bookings_booking WHERE user_id = %(user_id)s"

# From here on word for word.

_TERMS = """
SELECT
    service.id, service.calendar_id, calendar.version, calendar.provider_id, service.mode,
    service.is_active, service.capacity, service.duration_minutes, service.step_minutes,
    service.buffer_before_minutes, service.buffer_after_minutes, service.min_notice_minutes,
    service.max_advance_days, service.requires_confirmation, service.price, service.currency,
    calendar.timezone,
    ARRAY(
        SELECT ARRAY[weekday, opens, closes] FROM catalog_openinghours
        WHERE calendar_id = calendar.id
    ) ,
    ARRAY(
        SELECT ARRAY[start_time, end_time] FROM catalog_timeoff
        WHERE calendar_id = calendar.id AND end_time > {since}
    ) {slot}
FROM catalog_service AS service JOIN catalog_calendar AS calendar
    ON calendar.id = service.calendar_id {join}
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""
# Its columns, as far as they have names of their own.
TERMS = [
    *("id", "calendar_id", "version", "provider_id", "mode", "is_active", "capacity"),
    *("duration_minutes", "step_minutes", "buffer_before_minutes", "buffer_after_minutes"),
    *("min_notice_minutes", "max_advance_days", "requires_confirmation", "price", "currency"),
    "timezone",
]
TERMS_AT_START = _TERMS.format(
    since="%(start_time)s",
    slot=", slot.id, slot.start_time, slot.end_time, slot.blocked, slot.capacity, slot.status",
    join="""LEFT JOIN bookings_slot AS slot ON slot.service_id = service.id
    AND slot.start_time = %(start_time)s AND slot.status = 'scheduled'""",
)
TERMS_OF_SERVICES = _TERMS.format(since="%(from)s", slot="", join="")

CREATE = """
WITH place AS (SELECT %(capacity)s::int AS capacity, 0 AS ahead), free AS (
    SELECT seat FROM unnest(
        ARRAY(SELECT generate_series(1, (SELECT capacity FROM place)))
    ) AS seat
    WHERE seat NOT IN (
        SELECT taken.seat FROM bookings_booking AS taken
        WHERE taken.service_id = %(service_id)s AND taken.active AND taken.id <> %(id)s
          AND taken.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND (taken.hold_expires_at IS NULL OR taken.hold_expires_at > %(at)s)
    ) AND NOT EXISTS (
        SELECT FROM bookings_occupancy AS other
        WHERE other.calendar_id = %(calendar_id)s AND other.occupant <> %(occupant)s
          AND other.id <> %(id)s
          AND other.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND (other.expires_at IS NULL OR other.expires_at > %(at)s)
    )
    ORDER BY seat LIMIT 1 OFFSET (SELECT ahead FROM place) + (
        SELECT count(DISTINCT beyond.seat) FROM bookings_booking AS beyond
        WHERE beyond.service_id = %(service_id)s AND beyond.seat > (SELECT capacity FROM place)
          AND beyond.active AND beyond.id <> %(id)s
          AND beyond.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND (beyond.hold_expires_at IS NULL OR beyond.hold_expires_at > %(at)s)
    )
), seated AS MATERIALIZED (
    SELECT free.seat, calendar.seat IS NOT NULL AS on_terms
    FROM free LEFT JOIN LATERAL (
        SELECT free.seat FROM catalog_calendar
        WHERE id = %(calendar_id)s AND version = %(version)s
          AND calendar_share_turn(%(calendar_id)s)
        FOR KEY SHARE
    ) AS calendar ON true
), booking AS (
    INSERT INTO bookings_booking (
        id, user_id, service_id, calendar_id, slot_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, notes, price, currency, hold_expires_at, created_at,
        updated_at
    )
    SELECT %(id)s, %(user_id)s, %(service_id)s, %(calendar_id)s, %(slot_id)s, seat, %(start_time)s,
        %(end_time)s, tstzrange(%(blocked_from)s, %(blocked_until)s), %(status)s,
        %(attendee_name)s, %(attendee_email)s, %(notes)s, %(price)s, %(currency)s,
        %(hold_expires_at)s, %(at)s, %(at)s
    FROM seated WHERE on_terms
    ON CONFLICT DO NOTHING
    RETURNING status, start_time, end_time, seat, slot_id, hold_expires_at
), event AS (
    INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
    SELECT %(id)s, %(event)s, %(actor_id)s, %(at)s, jsonb_build_object('status', booking.status,
        'start_time', booking.start_time, 'end_time', booking.end_time, 'seat', booking.seat,
        'slot_id', booking.slot_id, 'hold_expires_at', booking.hold_expires_at) FROM booking
)
SELECT seated.seat, seated.on_terms, booking.seat IS NOT NULL, booking.seat IS NULL AND EXISTS (
    SELECT FROM bookings_booking AS hold
    WHERE hold.calendar_id = %(calendar_id)s
      AND hold.hold_expires_at <= (SELECT %(at)s::timestamptz)
      AND hold.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
)
FROM seated LEFT JOIN booking ON true
"""

_IN_WINDOW = """
    calendar_id = service.calendar_id
    AND upper(blocked) > %(from)s - service.before AND lower(blocked) < %(until)s + service.after
    AND (expires_at IS NULL OR expires_at > %(at)s) AND id IS DISTINCT FROM %(but)s
"""
_STARTS = "tstzrange(lower({0}) - service.after, upper({0}) + service.before, '()')"
TAKEN = f"""
SELECT service.number, taken.seat, lower(taken.starts), upper(taken.starts)
FROM unnest(
    ARRAY(SELECT unnest(%(service_ids)s::uuid[])), %(calendar_ids)s::uuid[], %(several)s::bool[],
    %(before)s::interval[], %(after)s::interval[]
) WITH ORDINALITY AS service (id, calendar_id, several, before, after, number)
CROSS JOIN LATERAL (
    SELECT 0 AS seat, {_STARTS.format("period")} AS starts
    FROM (
        SELECT unnest(range_agg(blocked)) AS period
        FROM bookings_occupancy
        WHERE NOT (service.several AND occupant = service.id) AND {_IN_WINDOW}
    ) AS occupied
    UNION ALL
    -- Who runs into two bookings of a seat runs into one seat.
    SELECT seat, unnest(range_agg({_STARTS.format("blocked")}))
    FROM bookings_occupancy
    WHERE service.several AND occupant = service.id AND {_IN_WINDOW}
    GROUP BY seat
) AS taken
"""  # noqa: S608 - one constant in another, no values
SLOTS = """
SELECT service.number, slot.start_time, slot.end_time, slot.id, slot.capacity - (
    SELECT count(*) FROM bookings_booking
    WHERE slot_id = slot.id AND active AND id IS DISTINCT FROM %(but)s
      AND (hold_expires_at IS NULL OR hold_expires_at > %(at)s)
) - (
    SELECT count(*) FROM bookings_waitlistentry WHERE slot_id = slot.id AND status = 'waiting'
)
FROM unnest(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
    WITH ORDINALITY AS service (id, number)
-- One service after the other, which OFFSET keeps: not all slots of the platform in the window.
CROSS JOIN LATERAL (
    SELECT id, start_time, end_time, capacity FROM bookings_slot
    WHERE service_id = service.id AND status = 'scheduled'
      AND start_time >= %(from)s AND start_time < %(until)s
    OFFSET 0
) AS slot
ORDER BY slot.start_time
"""
