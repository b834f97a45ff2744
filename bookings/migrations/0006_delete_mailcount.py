from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0005_updated_at"),
    ]

    operations = [
        migrations.DeleteModel(
            name="MailCount",
        ),
    ]
