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
SELECT id, user_id, service_id, calendar_id, NULL AS slot_id, seat, start_time, end_time, status,
    attendee_name, attendee_email, notes, price, currency, hold_expires_at, created_at, updated_at
FROM bookings_booking WHERE user_id = %(user_id)s ORDER BY start_time, id LIMIT 20
"""
BOOKINGS_COUNT = "SELECT count(*) AS count FROM bookings_booking WHERE user_id = %(user_id)s"

# The one that fetches less than BookIt may: what a booking needs to know of its service.
BOOKABLE = """
SELECT id, calendar_id, duration_minutes, capacity, requires_confirmation, buffer_before_minutes,
    buffer_after_minutes, min_notice_minutes, max_advance_days, price, currency, is_active
FROM catalog_service WHERE id = %(service_id)s
"""
CREATE = """
WITH free AS (
    SELECT seat FROM unnest(ARRAY(SELECT generate_series(1, %(capacity)s::int))) AS seat
    WHERE seat NOT IN (
        SELECT taken.seat FROM bookings_booking AS taken
        WHERE taken.service_id = %(service_id)s AND taken.active AND taken.id <> %(id)s
          AND taken.blocked && %(blocked)s
    ) AND NOT EXISTS (
        SELECT FROM bookings_booking AS other
        WHERE other.calendar_id = %(calendar_id)s AND other.service_id <> %(service_id)s
          AND other.active AND other.id <> %(id)s
          AND other.blocked && %(blocked)s
    )
    ORDER BY seat LIMIT 1 OFFSET (
        SELECT count(DISTINCT beyond.seat) FROM bookings_booking AS beyond
        WHERE beyond.service_id = %(service_id)s AND beyond.seat > %(capacity)s::int
          AND beyond.active AND beyond.id <> %(id)s
          AND beyond.blocked && %(blocked)s
    )
), booking AS (
    INSERT INTO bookings_booking (
        id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, notes, price, currency, created_at, updated_at
    )
    SELECT %(id)s, %(user_id)s, %(service_id)s, %(calendar_id)s, seat, %(start_time)s,
        %(end_time)s, %(blocked)s, %(status)s, %(attendee_name)s, %(attendee_email)s, %(notes)s,
        %(price)s, %(currency)s, %(created_at)s, %(updated_at)s
    FROM free
    ON CONFLICT DO NOTHING
    RETURNING seat, status, start_time, end_time
), event AS (
    INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
    SELECT %(id)s, 'booking.created', %(user_id)s, %(created_at)s, jsonb_build_object(
        'status', status, 'start_time', start_time, 'end_time', end_time, 'seat', seat
    ) FROM booking
)
SELECT free.seat, booking.seat IS NOT NULL AS taken FROM free LEFT JOIN booking ON true
"""
