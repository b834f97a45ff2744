import django.contrib.postgres.fields
import django.contrib.postgres.fields.ranges
import django.core.validators
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.datetime
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

# The first function makes UUIDs of version 7 (RFC 9562) from the clock of PostgreSQL: 48 bits with
# milliseconds, 12 bits with a fraction of a millisecond, and 62 random bits. A tick is 1/4096 ms.
# PostgreSQL has such a function only from version 18 on. The second function returns the ticks of a
# UUID.
UUID7 = """
CREATE FUNCTION uuid7(
    ticks bigint DEFAULT floor(extract(epoch FROM clock_timestamp()) * 4096000)::bigint
) RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    RETURN (
        lpad(to_hex(ticks >> 12), 12, '0') || '7' || lpad(to_hex(ticks & 4095), 3, '0')
        || substr(gen_random_uuid()::text, 20)
    )::uuid;
END
$$;
CREATE FUNCTION uuid7_ticks(id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT ('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint << 12
        | ('x' || substr(id::text, 16, 3))::bit(12)::bigint
$$;
"""
NO_UUID7 = """
DROP FUNCTION uuid7_ticks;
DROP FUNCTION uuid7;
"""

# Most bookings are confirmed once. If the page of a booking has room for the new version of its row
# (`fillfactor`), the confirmation writes no index. By default, PostgreSQL vacuums a table only
# after a fifth of its rows has changed. Until then, dead rows take up space, and counts must read
# the rows and not only an index.
STORAGE = """
ALTER TABLE bookings_booking SET (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.05
);
ALTER TABLE bookings_occupancy SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE bookings_bookingevent SET (autovacuum_vacuum_insert_scale_factor = 0.05);
"""
DEFAULT_STORAGE = """
ALTER TABLE bookings_booking RESET (
    fillfactor,
    autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_insert_scale_factor,
    autovacuum_analyze_scale_factor
);
ALTER TABLE bookings_occupancy RESET (autovacuum_vacuum_scale_factor);
ALTER TABLE bookings_bookingevent RESET (autovacuum_vacuum_insert_scale_factor);
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("catalog", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL(UUID7, NO_UUID7),
        migrations.CreateModel(
            name="Slot",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "service",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="slots",
                        to="catalog.service",
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="slots",
                        to="catalog.calendar",
                    ),
                ),
                ("start_time", models.DateTimeField()),
                ("end_time", models.DateTimeField()),
                (
                    "blocked",
                    django.contrib.postgres.fields.ranges.DateTimeRangeField(
                        help_text="The period, widened by the service's buffers."
                    ),
                ),
                (
                    "capacity",
                    models.PositiveIntegerField(
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000),
                        ]
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[("scheduled", "Scheduled"), ("cancelled", "Cancelled")],
                        default="scheduled",
                        max_length=9,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "ordering": ["start_time", "id"],
                "indexes": [
                    models.Index(fields=["service", "start_time", "id"], name="slot_by_service"),
                    models.Index(fields=["calendar", "start_time", "id"], name="slot_by_calendar"),
                    models.Index(fields=["start_time", "id"], name="slot_by_start"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Booking",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="bookings",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "service",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="bookings",
                        to="catalog.service",
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="bookings",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "slot",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        help_text="The published slot, if the booking is in one.",
                        null=True,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="bookings",
                        to="bookings.slot",
                    ),
                ),
                ("seat", models.PositiveIntegerField()),
                ("start_time", models.DateTimeField()),
                ("end_time", models.DateTimeField()),
                (
                    "blocked",
                    django.contrib.postgres.fields.ranges.DateTimeRangeField(
                        help_text="The period, widened by the service's buffers."
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("held", "Held"),
                            ("pending", "Pending"),
                            ("confirmed", "Confirmed"),
                            ("cancelled", "Cancelled"),
                            ("completed", "Completed"),
                            ("expired", "Expired"),
                            ("no_show", "No Show"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "active",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.ExpressionWrapper(
                            models.Q(
                                (
                                    "status__in",
                                    ["held", "pending", "confirmed", "completed", "no_show"],
                                )
                            ),
                            models.BooleanField(),
                        ),
                        output_field=models.BooleanField(),
                    ),
                ),
                (
                    "unfinished",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.ExpressionWrapper(
                            models.Q(("status__in", ["held", "pending", "confirmed"])),
                            models.BooleanField(),
                        ),
                        output_field=models.BooleanField(),
                    ),
                ),
                ("attendee_name", models.CharField(blank=True, default="", max_length=200)),
                ("attendee_email", models.EmailField(blank=True, default="", max_length=254)),
                ("notes", models.TextField(blank=True, default="", max_length=2000)),
                ("price", models.DecimalField(decimal_places=3, max_digits=15)),
                ("currency", models.CharField(max_length=3)),
                ("hold_expires_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "ordering": ["start_time", "id"],
                "indexes": [
                    models.Index(fields=["user", "start_time", "id"], name="booking_by_user"),
                    models.Index(fields=["user", "created_at", "id"], name="booking_by_user_age"),
                    models.Index(
                        fields=["calendar", "start_time", "id"], name="booking_by_calendar"
                    ),
                    models.Index(fields=["service", "start_time", "id"], name="booking_by_service"),
                    models.Index(fields=["start_time", "id", "end_time"], name="booking_by_start"),
                    models.Index(fields=["created_at", "id"], name="booking_by_age"),
                    models.Index(
                        condition=models.Q(("slot__isnull", False)),
                        fields=["slot"],
                        name="booking_by_slot",
                    ),
                    models.Index(
                        condition=models.Q(("hold_expires_at__isnull", False)),
                        fields=["user", "hold_expires_at"],
                        name="booking_holds_by_user",
                    ),
                    models.Index(
                        condition=models.Q(("hold_expires_at__isnull", False)),
                        fields=["calendar", "hold_expires_at"],
                        name="booking_holds_by_calendar",
                    ),
                    models.Index(
                        condition=models.Q(("hold_expires_at__isnull", False)),
                        fields=["hold_expires_at"],
                        name="booking_holds_by_end",
                    ),
                    models.Index(
                        condition=models.Q(("unfinished", True)),
                        fields=["start_time", "id"],
                        name="booking_unfinished",
                    ),
                    models.Index(
                        condition=models.Q(
                            models.Func(
                                models.F("end_time"),
                                models.F("start_time"),
                                arg_joiner=" - ",
                                output_field=models.BooleanField(),
                                template="(%(expressions)s) > interval '1 day'",
                            )
                        ),
                        fields=["end_time", "start_time"],
                        name="booking_long",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="BookingEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=models.Func(function="uuid7", output_field=models.UUIDField()),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "booking",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="events",
                        to="bookings.booking",
                    ),
                ),
                (
                    "type",
                    models.CharField(
                        choices=[
                            ("booking.held", "Held"),
                            ("booking.created", "Created"),
                            ("booking.confirmed", "Confirmed"),
                            ("booking.rescheduled", "Rescheduled"),
                            ("booking.cancelled", "Cancelled"),
                            ("booking.completed", "Completed"),
                            ("booking.expired", "Expired"),
                            ("booking.no_show", "No Show"),
                            ("booking.deleted", "Deleted"),
                            ("booking.reminded", "Reminded"),
                            ("review.created", "Reviewed"),
                        ],
                        max_length=30,
                    ),
                ),
                (
                    "actor",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        help_text="The user who caused the event; empty if it happened automatically.",
                        null=True,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("at", models.DateTimeField()),
                ("data", models.JSONField(default=dict)),
                ("server", models.SmallIntegerField(db_default=0, editable=False)),
                (
                    "transaction",
                    models.BigIntegerField(
                        db_default=django.db.models.functions.comparison.Cast(
                            django.db.models.functions.comparison.Cast(
                                models.Func(function="pg_current_xact_id"), models.TextField()
                            ),
                            models.BigIntegerField(),
                        ),
                        editable=False,
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "indexes": [
                    models.Index(fields=["transaction", "id"], name="event_by_transaction"),
                    models.Index(fields=["booking", "id"], name="event_by_booking"),
                    models.Index(fields=["type", "id"], name="event_by_type"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Occupancy",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        help_text="The id of the slot or the booking.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "occupant",
                    models.UUIDField(
                        help_text="The slot, or the service if it is booked without a slot."
                    ),
                ),
                (
                    "seat",
                    models.PositiveIntegerField(
                        help_text="The seat of a booking; empty for a slot, which occupies all seats.",
                        null=True,
                    ),
                ),
                ("blocked", django.contrib.postgres.fields.ranges.DateTimeRangeField()),
                ("expires_at", models.DateTimeField(help_text="When the hold expires.", null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("calendar"),
                        models.F("blocked__endswith"),
                        models.F("blocked__startswith"),
                        name="occupancy_by_end",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="WaitlistEntry",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "slot",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="waitlist",
                        to="bookings.slot",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="waitlist_entries",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "booking",
                    models.OneToOneField(
                        blank=True,
                        db_constraint=False,
                        help_text=(
                            "The hold that was offered to the user, or the booking that "
                            "the user made."
                        ),
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="waitlist_entry",
                        to="bookings.booking",
                    ),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("offered", "Offered"),
                            ("booked", "Booked"),
                            ("passed", "Passed"),
                            ("left", "Left"),
                        ],
                        default="waiting",
                        max_length=7,
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name": "waitlist entry",
                "verbose_name_plural": "waitlist entries",
                "ordering": ["created_at", "id"],
                "indexes": [
                    models.Index(fields=["slot", "created_at", "id"], name="waitlist_by_slot"),
                    models.Index(
                        condition=models.Q(("status", "waiting")),
                        fields=["slot", "created_at", "id"],
                        name="waitlist_waiting",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Feed",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        help_text="The id of the user or the calendar.",
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("version", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="MailCount",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "subject",
                    models.CharField(
                        help_text="A booking and one recipient of its emails, or the hash of an address.",
                        max_length=100,
                    ),
                ),
                ("day", models.DateField(help_text="The day in UTC.")),
                ("sent", models.PositiveIntegerField(default=0)),
                (
                    "most",
                    models.PositiveIntegerField(
                        help_text="The limit when the last email was counted."
                    ),
                ),
                (
                    "withheld",
                    models.PositiveIntegerField(
                        default=0,
                        help_text="Emails that were not sent because the limit was reached.",
                    ),
                ),
            ],
            options={
                "ordering": ["-day", "-withheld", "id"],
                "indexes": [models.Index(fields=["day", "id"], name="mail_count_by_day")],
            },
        ),
        migrations.CreateModel(
            name="Webhook",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("url", models.URLField(max_length=2000)),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        help_text=(
                            "The admin who created the webhook, or who last switched it on "
                            "or renewed its secret."
                        ),
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=30),
                        help_text="The types of events to send.",
                        size=None,
                    ),
                ),
                (
                    "since",
                    models.JSONField(
                        default=dict,
                        help_text="For each type, an id from the moment when the webhook subscribed to it.",
                    ),
                ),
                ("is_active", models.BooleanField(default=True)),
                (
                    "secret",
                    models.CharField(
                        help_text="Signs the messages, as Standard Webhooks specifies.",
                        max_length=100,
                    ),
                ),
                ("previous_secret", models.CharField(blank=True, default="", max_length=100)),
                ("previous_secret_expires_at", models.DateTimeField(blank=True, null=True)),
                (
                    "failing_since",
                    models.DateTimeField(
                        blank=True,
                        help_text="The time since which every attempt has failed.",
                        null=True,
                    ),
                ),
                (
                    "paused_until",
                    models.DateTimeField(
                        blank=True,
                        help_text=(
                            "All other messages wait until this time, when the failed "
                            "message is retried."
                        ),
                        null=True,
                    ),
                ),
                ("disabled_reason", models.CharField(blank=True, default="", max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "ordering": ["created_at", "id"],
                "indexes": [models.Index(fields=["created_at", "id"], name="webhook_by_age")],
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "webhook",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deliveries",
                        to="bookings.webhook",
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        db_index=False,
                        help_text="Empty for a test.",
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "event",
                    models.ForeignKey(
                        blank=True,
                        db_constraint=False,
                        help_text="Empty for a test.",
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="deliveries",
                        to="bookings.bookingevent",
                    ),
                ),
                ("type", models.CharField(max_length=30)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("delivered", "Delivered"),
                            ("failed", "Failed"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                ("next_attempt_at", models.DateTimeField(blank=True, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(
                        fields=["webhook", "created_at", "id"], name="delivery_by_webhook"
                    ),
                    models.Index(fields=["created_at"], name="delivery_by_age"),
                    models.Index(
                        models.F("webhook"),
                        models.OrderBy(models.F("event"), nulls_first=True),
                        models.F("id"),
                        condition=models.Q(("status", "pending")),
                        name="delivery_pending",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "delivery",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="attempts",
                        to="bookings.delivery",
                    ),
                ),
                ("at", models.DateTimeField()),
                ("duration_ms", models.PositiveIntegerField()),
                ("status_code", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("error", models.CharField(blank=True, default="", max_length=300)),
                (
                    "response",
                    models.TextField(
                        blank=True,
                        default="",
                        help_text="The beginning of the response, at most 2 KiB.",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.RunSQL(STORAGE, DEFAULT_STORAGE),
    ]
