from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookings", "0015_language")]

    operations = [
        migrations.AddIndex(
            model_name="bookingevent",
            index=models.Index(
                condition=models.Q(("type", "booking.cancelled"), ("data__was__status", "held")),
                fields=["booking"],
                name="event_hold_released",
            ),
        ),
    ]
