from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.db import migrations, models

from bookit.database.constraints import Trigger

BETWEEN_WORDS = (
    r"[\u0001-/:-@\u005B-`{-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7"
    r"\u0300-\u036F\u2000-\u206F\u20A0-\u20CF\u2190-\u245F\u2500-\u2775\u2794-\u2BFF"
    r"\u3000-\u3004\u3008-\u3020\uFE00-\uFE0F\uFF01-\uFF0F\U0001F300-\U0001FAFF]+"
)


def words(field):
    return models.Func(
        models.F(field),
        models.Value(BETWEEN_WORDS),
        models.Value(" "),
        models.Value("g"),
        function="REGEXP_REPLACE",
        output_field=models.TextField(),
    )


class Migration(migrations.Migration):
    """Divides titles and descriptions into words as searches do.

    This writes the table of services again. Nobody can read services meanwhile.
    """

    dependencies = [
        ("catalog", "0007_version_of_metadata"),
    ]

    operations = [
        # The expression of a generated column cannot be changed, so the columns are created again.
        migrations.RemoveIndex(model_name="service", name="service_words"),
        migrations.RemoveField(model_name="service", name="search"),
        migrations.RemoveField(model_name="service", name="title_words"),
        migrations.AddField(
            model_name="service",
            name="search",
            field=models.GeneratedField(
                expression=SearchVector(words("title"), weight="A", config="english")
                + SearchVector(words("description"), weight="B", config="english"),
                output_field=SearchVectorField(),
                db_persist=True,
            ),
        ),
        migrations.AddField(
            model_name="service",
            name="title_words",
            field=models.GeneratedField(
                expression=SearchVector(words("title"), config="english"),
                output_field=SearchVectorField(),
                db_persist=True,
            ),
        ),
        migrations.AddIndex(
            model_name="service",
            index=GinIndex(
                fields=["search", "title_words"], name="service_words", fastupdate=False
            ),
        ),
        migrations.RemoveConstraint(model_name="service", name="service_words_are_known"),
        migrations.AddConstraint(
            model_name="service",
            constraint=Trigger(
                body=f"""
                    BEGIN
                        PERFORM catalog_learn(
                            regexp_replace(NEW.title || ' ' || NEW.description, '{BETWEEN_WORDS}', ' ', 'g')
                        );
                        RETURN NULL;
                    END
                """,
                name="service_words_are_known",
                triggers={
                    "service_words_are_known": "AFTER INSERT OR UPDATE OF title, description ON {table} FOR EACH ROW"
                },
            ),
        ),
    ]
