import django.contrib.postgres.indexes
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0009_roles_and_keys")]

    operations = [
        migrations.AddIndex(
            model_name="user",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.indexes.OpClass(
                    models.Func(
                        models.F("phone"),
                        output_field=models.TextField(),
                        template="regexp_replace(%(expressions)s, '[^0-9]', '', 'g')",
                    ),
                    name="gin_trgm_ops",
                ),
                name="user_by_phone",
            ),
        ),
    ]
