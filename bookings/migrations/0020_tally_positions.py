from django.db import migrations, models

# In a distributed database, the total was wrong. Without a total, a worker counts all events again.
_COUNT_AGAIN = """
DELETE FROM bookings_bookingtally WHERE current_setting('bookit.distributed', true) = 'on'
"""


class Migration(migrations.Migration):
    dependencies = [("bookings", "0019_booked_calendar")]

    operations = [
        migrations.AddField(
            model_name="bookingtally",
            name="positions",
            field=models.JSONField(db_default={}, default=dict),
        ),
        migrations.RunSQL(_COUNT_AGAIN, migrations.RunSQL.noop),
    ]
