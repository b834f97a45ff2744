import django.contrib.postgres.constraints
import django.db.models.functions.comparison
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalog", "0001_initial"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="calendar",
            constraint=models.UniqueConstraint(fields=("id", "version"), name="calendar_version"),
        ),
        migrations.AddConstraint(
            model_name="openinghours",
            constraint=models.CheckConstraint(
                condition=models.Q(("weekday__lte", 6)), name="opening_hours_weekday"
            ),
        ),
        migrations.AddConstraint(
            model_name="openinghours",
            constraint=models.CheckConstraint(
                condition=models.Q(("closes__gt", models.F("opens")), ("closes__lte", 1440)),
                name="opening_hours_span",
            ),
        ),
        migrations.AddConstraint(
            model_name="openinghours",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                expressions=[
                    ("calendar", "="),
                    ("weekday", "="),
                    (
                        models.Func(
                            django.db.models.functions.comparison.Cast(
                                "opens", models.IntegerField()
                            ),
                            django.db.models.functions.comparison.Cast(
                                "closes", models.IntegerField()
                            ),
                            function="int4range",
                        ),
                        "&&",
                    ),
                ],
                name="opening_hours_apart",
            ),
        ),
        migrations.AddConstraint(
            model_name="timeoff",
            constraint=models.CheckConstraint(
                condition=models.Q(("end_time__gt", models.F("start_time"))),
                name="time_off_not_empty",
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.UniqueConstraint(
                fields=("id", "calendar"), name="service_calendar_pair"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("price__gte", 0)), name="service_price_not_negative"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("duration_minutes__gte", 1)), name="service_duration_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("capacity__gte", 1)), name="service_capacity_positive"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("mode__in", ["open", "slots"])), name="service_mode_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="service",
            constraint=models.CheckConstraint(
                condition=models.Q(("currency__regex", "^[A-Z]{3}$")), name="service_currency_code"
            ),
        ),
    ]
