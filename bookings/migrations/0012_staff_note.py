import django.db.models.deletion
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

from bookit.database.constraints import CompositeForeignKey


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0011_event_api_key"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="StaffNote",
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
                ("text", models.TextField(max_length=2000)),
                ("at", models.DateTimeField()),
                (
                    "author",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
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
                        related_name="staff_notes",
                        to="bookings.booking",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "default_permissions": (),
                "indexes": [models.Index(fields=["booking", "id"], name="staff_note_by_booking")],
            },
        ),
        migrations.AddConstraint(
            model_name="staffnote",
            constraint=CompositeForeignKey(
                fields=("calendar", "booking"),
                name="staff_note_on_calendar",
                on_delete="CASCADE",
                to="bookings.Booking",
                to_fields=("calendar", "id"),
            ),
        ),
    ]
