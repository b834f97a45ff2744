from django.db import migrations, models


class Migration(migrations.Migration):
    """Renames the field, but not its column: the database does not change."""

    dependencies = [
        ("bookings", "0017_failed_deliveries"),
    ]

    operations = [
        migrations.AlterField(
            model_name="mailtext",
            name="kind",
            field=models.CharField(
                db_column="kind",
                editable=False,
                max_length=30,
                primary_key=True,
                serialize=False,
                verbose_name="kind",
            ),
        ),
        migrations.RenameField(model_name="mailtext", old_name="kind", new_name="key"),
        migrations.AlterModelOptions(
            name="mailtext",
            options={
                "ordering": ["key"],
                "verbose_name": "email text",
                "verbose_name_plural": "email texts",
            },
        ),
    ]
