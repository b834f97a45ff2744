import django.db.models.fields.json
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0012_staff_note"),
    ]

    operations = [
        migrations.CreateModel(
            name="MailText",
            fields=[
                (
                    "kind",
                    models.CharField(
                        editable=False, max_length=30, primary_key=True, serialize=False
                    ),
                ),
                (
                    "label",
                    models.CharField(
                        blank=True, max_length=60, verbose_name="beginning of the subject"
                    ),
                ),
                (
                    "attendee",
                    models.TextField(
                        blank=True, max_length=2000, verbose_name="text for the customer"
                    ),
                ),
                (
                    "provider",
                    models.TextField(
                        blank=True, max_length=2000, verbose_name="text for the provider"
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
                "verbose_name": "email text",
                "verbose_name_plural": "email texts",
                "ordering": ["kind"],
            },
        ),
        migrations.RemoveConstraint(
            model_name="bookingevent",
            name="event_reminded_once",
        ),
        migrations.AddConstraint(
            model_name="bookingevent",
            constraint=models.UniqueConstraint(
                models.F("booking"),
                django.db.models.fields.json.KeyTextTransform("start_time", "data"),
                django.db.models.fields.json.KeyTextTransform("hours", "data"),
                condition=models.Q(("type", "booking.reminded")),
                name="event_reminded_once",
                nulls_distinct=False,
            ),
        ),
    ]
