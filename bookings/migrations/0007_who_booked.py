import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0006_tally"),
    ]

    operations = [
        migrations.AddField(
            model_name="booking",
            name="attendee_phone",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                max_length=32,
                validators=[
                    django.core.validators.RegexValidator(
                        "^\\+?[0-9][0-9 ()./-]{2,30}\\Z",
                        "This is not a phone number such as +351 912 345 678.",
                    )
                ],
            ),
        ),
        migrations.AddField(
            model_name="booking",
            name="cancellation_reason",
            field=models.CharField(blank=True, db_default="", default="", max_length=500),
        ),
        migrations.AlterField(
            model_name="bookingevent",
            name="type",
            field=models.CharField(
                choices=[
                    ("booking.held", "Held"),
                    ("booking.created", "Created"),
                    ("booking.confirmed", "Confirmed"),
                    ("booking.rescheduled", "Rescheduled"),
                    ("booking.changed", "Changed"),
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
    ]
