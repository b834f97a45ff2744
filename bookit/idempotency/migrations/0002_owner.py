from django.db import migrations, models
from django.db.models import F


def owned_by_their_users(apps, schema_editor):
    """Make the user of each kept response its owner."""
    kept = apps.get_model("idempotency", "KeptResponse")
    kept.objects.update(owner=F("user_id"))


class Migration(migrations.Migration):
    dependencies = [
        ("idempotency", "0001_initial"),
    ]

    operations = [
        migrations.AddField(
            model_name="keptresponse",
            name="owner",
            field=models.UUIDField(null=True),
        ),
        migrations.RunPython(owned_by_their_users, migrations.RunPython.noop, elidable=True),
        migrations.AlterField(
            model_name="keptresponse",
            name="owner",
            field=models.UUIDField(),
        ),
        migrations.RemoveConstraint(
            model_name="keptresponse",
            name="idempotency_key_used_once",
        ),
        migrations.AddConstraint(
            model_name="keptresponse",
            constraint=models.UniqueConstraint(
                fields=("owner", "key"), name="idempotency_key_used_once"
            ),
        ),
    ]
