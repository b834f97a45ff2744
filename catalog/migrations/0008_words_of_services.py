from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector, SearchVectorField
from django.db import migrations, models

from bookit.database.constraints import Trigger

DIVIDERS = (
    r"\u0001-/:-@\u005B-`{-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7"
    r"\u0300-\u036F\u037E\u0387\u05BE\u05F3\u05F4\u060C\u061B\u061F\u0964\u0965\u1680"
    r"\u2000-\u206F\u20A0-\u20CF\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118"
    r"\u211E-\u2123\u2125\u2127\u2129\u212E\u213A\u213B\u2140-\u2144\u214A-\u214D\u214F"
    r"\u2190-\u2BFF\u2E00-\u2E2E\u2E30-\u2E7F\u3000-\u3004\u3008-\u3020\u3030\u303D-\u303F"
    r"\u30A0\u30FB\uFE00-\uFE6F\uFEFF\uFF00-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65"
    r"\U0001F000-\U0001FAFF"
)


def words(field):
    return models.Func(
        models.F(field),
        models.Value(f"[{DIVIDERS}]+"),
        models.Value(" "),
        models.Value("g"),
        function="REGEXP_REPLACE",
        output_field=models.TextField(),
    )


def create_columns(title, description):
    """Return the SQL that creates the columns for the words of these two texts."""
    title, description = (
        f"to_tsvector('english'::regconfig, COALESCE({text}, ''))" for text in (title, description)
    )
    return f"""
        ALTER TABLE catalog_service
            DROP COLUMN search,
            DROP COLUMN title_words,
            ADD COLUMN search tsvector GENERATED ALWAYS AS (
                setweight({title}, 'A') || setweight({description}, 'B')
            ) STORED,
            ADD COLUMN title_words tsvector GENERATED ALWAYS AS ({title}) STORED
    """


class Migration(migrations.Migration):
    """Divides titles and descriptions into words as searches do.

    This writes the table of services again. Meanwhile, nobody can read services or book them.
    """

    dependencies = [
        ("catalog", "0007_version_of_metadata"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="service", name="service_words"),
        # Django cannot change the expression of a generated column, and neither can PostgreSQL 15
        # and 16. Therefore, the columns are created again, with one statement, so that the table is
        # written only once.
        migrations.RunSQL(
            sql=create_columns(
                f"regexp_replace(title, '[{DIVIDERS}]+', ' ', 'g')",
                f"regexp_replace(description, '[{DIVIDERS}]+', ' ', 'g')",
            ),
            reverse_sql=create_columns("title", "description"),
            state_operations=[
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
            ],
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
                            regexp_replace(NEW.title || ' ' || NEW.description, '[{DIVIDERS}]+', ' ', 'g')
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
