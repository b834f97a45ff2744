from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0004_transition"),
    ]

    operations = [
        migrations.DeleteModel(
            name="MailCount",
        ),
    ]
