import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_updated_at"),
    ]

    operations = [
        migrations.AddField(
            model_name="user",
            name="phone",
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
    ]
