from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0007_who_booked"),
    ]

    operations = [
        migrations.DeleteModel(
            name="MailCount",
        ),
    ]
