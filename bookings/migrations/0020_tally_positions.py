from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookings", "0019_booked_calendar")]

    operations = [
        migrations.AddField(
            model_name="bookingtally",
            name="positions",
            field=models.JSONField(db_default={}, default=dict),
        ),
    ]
