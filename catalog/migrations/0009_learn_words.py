from importlib import import_module

from django.db import migrations

BETWEEN_WORDS = import_module("catalog.migrations.0008_words_of_services").BETWEEN_WORDS

# Few enough texts of the greatest length that their words fit into one `tsvector`.
SERVICES = 20
LEARN = "SELECT catalog_learn(regexp_replace(%s, %s, ' ', 'g'))"


def learn(apps, schema_editor):
    """Add the words of existing services to the dictionary."""
    connection = schema_editor.connection
    services = apps.get_model("catalog", "Service").objects.using(connection.alias).order_by("pk")
    rows = services.values_list("pk", "title", "description")
    last = None
    while some := [*(rows.filter(pk__gt=last) if last else rows)[:SERVICES]]:
        last = some[-1][0]
        text = " ".join(f"{title} {description}" for _pk, title, description in some)
        with connection.cursor() as cursor:
            cursor.execute(LEARN, [text, BETWEEN_WORDS])


class Migration(migrations.Migration):
    # Each statement is a transaction, so nobody waits until all words are known.
    atomic = False

    dependencies = [
        ("catalog", "0008_words_of_services"),
    ]

    operations = [
        migrations.RunPython(learn, migrations.RunPython.noop),
    ]
