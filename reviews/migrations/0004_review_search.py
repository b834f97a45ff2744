import django.contrib.postgres.indexes
import django.db.models.functions.text
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("reviews", "0003_updated_at")]

    operations = [
        migrations.AddIndex(
            model_name="review",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.indexes.OpClass(
                    django.db.models.functions.text.Upper("comment"), name="gin_trgm_ops"
                ),
                fastupdate=False,
                name="review_by_comment",
            ),
        ),
    ]
