from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("mails", "0001_initial"),
    ]

    operations = [
        migrations.AlterField(
            model_name="mailcount",
            name="subject",
            field=models.CharField(
                help_text="A booking and its attendees, a booking and its provider, or the hash of an address.",
                max_length=100,
            ),
        ),
    ]
