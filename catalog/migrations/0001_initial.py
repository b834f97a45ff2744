from decimal import Decimal

import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.contrib.postgres.search
import django.core.validators
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.comparison
import django.db.models.functions.datetime
import django.db.models.functions.math
import django.db.models.functions.text
import uuid_utils.compat
from django.conf import settings
from django.db import migrations, models

import bookit.money
import bookit.times
import catalog.models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Calendar",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                (
                    "timezone",
                    models.CharField(
                        default="UTC", max_length=64, validators=[bookit.times.validate_zone]
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="calendars",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("version", models.PositiveBigIntegerField(db_default=0, editable=False)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "ordering": ["name", "id"],
                "indexes": [
                    models.Index(fields=["name", "id"], name="calendar_by_name"),
                    models.Index(fields=["created_at", "id"], name="calendar_by_age"),
                    django.contrib.postgres.indexes.GinIndex(
                        django.contrib.postgres.indexes.OpClass(
                            django.db.models.functions.text.Upper("name"), name="gin_trgm_ops"
                        ),
                        name="calendar_by_letters",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="OpeningHours",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="hours",
                        to="catalog.calendar",
                    ),
                ),
                (
                    "weekday",
                    models.PositiveSmallIntegerField(help_text="0 is Monday, 6 is Sunday."),
                ),
                ("opens", models.PositiveSmallIntegerField(help_text="Minutes after midnight.")),
                (
                    "closes",
                    models.PositiveSmallIntegerField(
                        help_text="Minutes after midnight, at most 1440."
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "opening hours",
                "ordering": ["calendar", "weekday", "opens", "id"],
            },
        ),
        migrations.CreateModel(
            name="TimeOff",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="time_off",
                        to="catalog.calendar",
                    ),
                ),
                ("start_time", models.DateTimeField()),
                ("end_time", models.DateTimeField()),
                ("reason", models.CharField(blank=True, default="", max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "time off",
                "ordering": ["start_time", "id"],
                "indexes": [
                    models.Index(
                        fields=["calendar", "start_time", "id"], name="time_off_by_calendar"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Service",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "calendar",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.RESTRICT,
                        related_name="services",
                        to="catalog.calendar",
                    ),
                ),
                ("title", models.CharField(max_length=200)),
                ("description", models.TextField(blank=True, default="", max_length=10000)),
                (
                    "category",
                    models.CharField(blank=True, db_index=True, default="", max_length=100),
                ),
                (
                    "price",
                    models.DecimalField(
                        decimal_places=3,
                        help_text="Must not have more decimals than the currency.",
                        max_digits=15,
                        validators=[django.core.validators.MinValueValidator(Decimal("0"))],
                    ),
                ),
                (
                    "currency",
                    models.CharField(
                        default=catalog.models.default_currency,
                        help_text="The ISO 4217 code of a currency in use.",
                        max_length=3,
                        validators=[bookit.money.validate_currency],
                    ),
                ),
                (
                    "duration_minutes",
                    models.PositiveIntegerField(
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(527040),
                        ]
                    ),
                ),
                (
                    "capacity",
                    models.PositiveIntegerField(
                        default=1,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(1000),
                        ],
                    ),
                ),
                (
                    "mode",
                    models.CharField(
                        choices=[
                            ("open", "any time inside the opening hours"),
                            ("slots", "published slots only"),
                        ],
                        default="open",
                        max_length=5,
                    ),
                ),
                ("requires_confirmation", models.BooleanField(default=True)),
                (
                    "buffer_before_minutes",
                    models.PositiveIntegerField(
                        default=0, validators=[django.core.validators.MaxValueValidator(527040)]
                    ),
                ),
                (
                    "buffer_after_minutes",
                    models.PositiveIntegerField(
                        default=0, validators=[django.core.validators.MaxValueValidator(527040)]
                    ),
                ),
                (
                    "min_notice_minutes",
                    models.PositiveIntegerField(
                        default=0, validators=[django.core.validators.MaxValueValidator(527040)]
                    ),
                ),
                (
                    "max_advance_days",
                    models.PositiveIntegerField(
                        blank=True,
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(3660),
                        ],
                    ),
                ),
                (
                    "cancellation_notice_minutes",
                    models.PositiveIntegerField(
                        default=0, validators=[django.core.validators.MaxValueValidator(527040)]
                    ),
                ),
                (
                    "step_minutes",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="The interval between the start times offered; if empty, the duration.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(1),
                            django.core.validators.MaxValueValidator(527040),
                        ],
                    ),
                ),
                ("is_active", models.BooleanField(default=True, verbose_name="active")),
                ("rating_sum", models.PositiveBigIntegerField(default=0, editable=False)),
                ("rating_count", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "rating_average",
                    models.GeneratedField(
                        db_persist=True,
                        expression=django.db.models.functions.math.Round(
                            django.db.models.expressions.CombinedExpression(
                                django.db.models.functions.comparison.Cast(
                                    models.F("rating_sum"),
                                    models.DecimalField(decimal_places=2, max_digits=20),
                                ),
                                "/",
                                django.db.models.functions.comparison.NullIf(
                                    models.F("rating_count"), 0
                                ),
                            ),
                            precision=2,
                        ),
                        output_field=models.DecimalField(decimal_places=2, max_digits=3, null=True),
                    ),
                ),
                (
                    "search",
                    models.GeneratedField(
                        db_persist=True,
                        expression=django.contrib.postgres.search.CombinedSearchVector(
                            django.contrib.postgres.search.SearchVector(
                                "title", config="english", weight="A"
                            ),
                            "||",
                            django.contrib.postgres.search.SearchVector(
                                "description", config="english", weight="B"
                            ),
                            django.contrib.postgres.search.SearchConfig("english"),
                        ),
                        output_field=django.contrib.postgres.search.SearchVectorField(),
                    ),
                ),
                (
                    "title_words",
                    models.GeneratedField(
                        db_persist=True,
                        expression=django.contrib.postgres.search.SearchVector(
                            "title", config="english"
                        ),
                        output_field=django.contrib.postgres.search.SearchVectorField(),
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "ordering": ["title", "id"],
                "indexes": [
                    models.Index(
                        fields=["title", "id"], include=["is_active"], name="service_by_title"
                    ),
                    models.Index(
                        fields=["price", "id"], include=["is_active"], name="service_by_price"
                    ),
                    models.Index(
                        fields=["created_at", "id"], include=["is_active"], name="service_by_age"
                    ),
                    models.Index(
                        fields=["duration_minutes", "id"],
                        include=["is_active"],
                        name="service_by_duration",
                    ),
                    models.Index(fields=["rating_average", "id"], name="service_by_rating"),
                    models.Index(
                        models.OrderBy(
                            models.F("rating_average"), descending=True, nulls_last=True
                        ),
                        models.OrderBy(models.F("id"), descending=True),
                        name="service_by_best_rating",
                    ),
                    models.Index(
                        condition=models.Q(("is_active", False)),
                        fields=["title", "id"],
                        name="service_inactive",
                    ),
                    models.Index(fields=["mode", "title", "id"], name="service_by_mode"),
                    models.Index(
                        condition=models.Q(("is_active", True)),
                        fields=["id"],
                        name="service_active",
                    ),
                    django.contrib.postgres.indexes.GinIndex(
                        django.contrib.postgres.indexes.OpClass(
                            django.db.models.functions.text.Upper("title"), name="gin_trgm_ops"
                        ),
                        name="service_by_letters",
                    ),
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["search", "title_words"], name="service_words"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Word",
            fields=[
                (
                    "text",
                    models.CharField(
                        db_collation="C", max_length=40, primary_key=True, serialize=False
                    ),
                ),
                (
                    "spellings",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.TextField(),
                        help_text="The word itself, and the word with any one of its letters left out.",
                        size=None,
                    ),
                ),
            ],
            options={
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False, fields=["spellings"], name="word_by_spelling"
                    ),
                    django.contrib.postgres.indexes.GinIndex(
                        fastupdate=False,
                        fields=["text"],
                        name="word_by_trigrams",
                        opclasses=["gin_trgm_ops"],
                    ),
                ],
            },
        ),
    ]
