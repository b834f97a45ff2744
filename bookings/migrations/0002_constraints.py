import django.contrib.postgres.constraints
import django.db.models.fields.json
from django.db import migrations, models

import bookings.models
from bookit.database.constraints import CompositeForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0001_initial"),
        ("catalog", "0002_constraints"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="slot",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(("status", "scheduled")),
                expressions=[("calendar", "="), ("blocked", "&&")],
                name="slots_apart",
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.UniqueConstraint(
                fields=("id", "service", "calendar", "start_time", "end_time", "blocked"),
                name="slot_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.CheckConstraint(
                condition=models.Q(("end_time__gt", models.F("start_time"))),
                name="slot_period_not_empty",
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "blocked__contains",
                        bookings.models.TsTzRange(models.F("start_time"), models.F("end_time")),
                    )
                ),
                name="slot_blocked_contains_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.CheckConstraint(
                condition=models.Q(("capacity__gte", 1)), name="slot_capacity_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["scheduled", "cancelled"])),
                name="slot_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=CompositeForeignKey(
                fields=("service", "calendar"),
                name="slot_service_on_calendar",
                to="catalog.Service",
                to_fields=("id", "calendar"),
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(("active", True)),
                expressions=[("service", "="), ("seat", "="), ("blocked", "&&")],
                name="booking_seat_free",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                condition=models.Q(("active", True)),
                expressions=[("calendar", "="), ("service", "<>"), ("blocked", "&&")],
                name="booking_calendar_free",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(("end_time__gt", models.F("start_time"))),
                name="booking_period_not_empty",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "blocked__contains",
                        bookings.models.TsTzRange(models.F("start_time"), models.F("end_time")),
                    )
                ),
                name="booking_blocked_contains_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(("seat__gte", 1)), name="booking_seat_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(("price__gte", 0)), name="booking_price_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "status__in",
                        [
                            "held",
                            "pending",
                            "confirmed",
                            "cancelled",
                            "completed",
                            "expired",
                            "no_show",
                        ],
                    )
                ),
                name="booking_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("hold_expires_at__isnull", False), ("status", "held")),
                    models.Q(
                        models.Q(("status", "held"), _negated=True),
                        ("hold_expires_at__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="booking_hold_expires",
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=CompositeForeignKey(
                fields=("service", "calendar"),
                name="booking_service_on_calendar",
                to="catalog.Service",
                to_fields=("id", "calendar"),
            ),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=CompositeForeignKey(
                fields=("slot", "service", "calendar", "start_time", "end_time", "blocked"),
                name="booking_in_slot",
                to="bookings.Slot",
                to_fields=("id", "service", "calendar", "start_time", "end_time", "blocked"),
            ),
        ),
        migrations.AddConstraint(
            model_name="slot",
            constraint=models.UniqueConstraint(fields=("calendar", "id"), name="slot_on_calendar"),
        ),
        migrations.AddConstraint(
            model_name="booking",
            constraint=models.UniqueConstraint(
                fields=("calendar", "id"), name="booking_on_calendar"
            ),
        ),
        migrations.AddConstraint(
            model_name="waitlistentry",
            constraint=CompositeForeignKey(
                fields=("calendar", "slot"),
                name="waitlist_slot_on_calendar",
                on_delete="CASCADE",
                to="bookings.Slot",
                to_fields=("calendar", "id"),
            ),
        ),
        migrations.AddConstraint(
            model_name="waitlistentry",
            constraint=CompositeForeignKey(
                fields=("calendar", "booking"),
                name="waitlist_booking_on_calendar",
                on_delete="SET NULL ({booking})",
                to="bookings.Booking",
                to_fields=("calendar", "id"),
            ),
        ),
        migrations.AddConstraint(
            model_name="bookingevent",
            constraint=models.UniqueConstraint(
                models.F("booking"),
                django.db.models.fields.json.KeyTextTransform("start_time", "data"),
                condition=models.Q(("type", "booking.reminded")),
                name="event_reminded_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="occupancy",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                expressions=[("calendar", "="), ("blocked", "&&"), ("occupant", "<>")],
                name="occupancy_one_at_a_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="waitlistentry",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status__in", ["waiting", "offered"])),
                fields=("slot", "user"),
                name="waitlist_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="waitlistentry",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["waiting", "offered", "booked", "passed", "left"])
                ),
                name="waitlist_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="mailcount",
            constraint=models.UniqueConstraint(fields=("subject", "day"), name="mail_count_once"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(fields=("webhook", "event"), name="delivery_once"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("calendar", None), ("event", None)),
                    models.Q(("calendar__isnull", False), ("event__isnull", False)),
                    _connector="OR",
                ),
                name="delivery_names_calendar",
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["pending", "delivered", "failed"])),
                name="delivery_status_known",
            ),
        ),
    ]
