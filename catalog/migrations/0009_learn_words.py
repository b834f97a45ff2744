from importlib import import_module

from django.db import migrations

from bookit.database.retries import retried

DIVIDERS = import_module("catalog.migrations.0008_words_of_services").DIVIDERS
BATCH = 1000
LEARN = "SELECT catalog_learn(regexp_replace(%s, %s, ' ', 'g'))"


def learn(apps, schema_editor):
    """Add the words of existing services to the dictionary."""
    connection = schema_editor.connection

    # An import can add the same words in another order, so the two can deadlock.
    @retried
    def learn_words(text):
        with connection.cursor() as cursor:
            cursor.execute(LEARN, [text, f"[{DIVIDERS}]+"])

    services = apps.get_model("catalog", "Service").objects.using(connection.alias).order_by("pk")
    rows = services.values_list("pk", "title", "description")
    last = None
    while some := [*(rows.filter(pk__gt=last) if last else rows)[:BATCH]]:
        last = some[-1][0]
        for _pk, title, description in some:
            learn_words(f"{title} {description}")


class Migration(migrations.Migration):
    # Each statement is a transaction of its own, so nobody waits until all words are known.
    atomic = False

    dependencies = [
        ("catalog", "0008_words_of_services"),
    ]

    operations = [
        # Without this, PostgreSQL would not know which words are frequent, and index-only scans
        # would read the table, which has just been written again.
        migrations.RunSQL("VACUUM (ANALYZE) catalog_service", migrations.RunSQL.noop),
        migrations.RunPython(learn, migrations.RunPython.noop),
    ]
