from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookings", "0016_released_holds")]

    operations = [
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status", "failed")),
                fields=["webhook"],
                name="delivery_failed",
            ),
        ),
    ]
