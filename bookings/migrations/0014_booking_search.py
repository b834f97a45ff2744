import django.contrib.postgres.indexes
import django.db.models.functions.text
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("bookings", "0013_mails")]

    operations = [
        migrations.AddIndex(
            model_name="booking",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.indexes.OpClass(
                    django.db.models.functions.text.Upper("attendee_name"), name="gin_trgm_ops"
                ),
                django.contrib.postgres.indexes.OpClass(
                    django.db.models.functions.text.Upper("attendee_email"), name="gin_trgm_ops"
                ),
                django.contrib.postgres.indexes.OpClass(
                    models.Func(
                        models.F("attendee_phone"),
                        output_field=models.TextField(),
                        template="regexp_replace(%(expressions)s, '[^0-9]', '', 'g')",
                    ),
                    name="gin_trgm_ops",
                ),
                condition=models.Q(
                    models.Func(
                        models.F("attendee_name"),
                        models.F("attendee_email"),
                        models.F("attendee_phone"),
                        output_field=models.BooleanField(),
                        template="(%(expressions)s) <> ('', '', '')",
                    )
                ),
                name="booking_by_attendee",
            ),
        ),
    ]
