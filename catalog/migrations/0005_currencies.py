from decimal import Decimal

import django.core.validators
from django.db import migrations, models

import bookit.money
import catalog.models

# PostgreSQL changes the type of no column that a trigger compares.
DROP_TRIGGER = "DROP TRIGGER service_terms_changed ON catalog_service"
CREATE_TRIGGER = """
    CREATE TRIGGER service_terms_changed AFTER UPDATE ON catalog_service
    FOR EACH ROW WHEN (
        (OLD.is_active, OLD.mode, OLD.capacity, OLD.duration_minutes,
            OLD.buffer_before_minutes, OLD.buffer_after_minutes, OLD.min_notice_minutes,
            OLD.max_advance_days, OLD.requires_confirmation, OLD.price, OLD.currency)
        IS DISTINCT FROM
        (NEW.is_active, NEW.mode, NEW.capacity, NEW.duration_minutes,
            NEW.buffer_before_minutes, NEW.buffer_after_minutes, NEW.min_notice_minutes,
            NEW.max_advance_days, NEW.requires_confirmation, NEW.price, NEW.currency)
    ) EXECUTE FUNCTION service_terms_changed();
"""


class Migration(migrations.Migration):
    """Prices have the decimals of their currency, up to three."""

    dependencies = [("catalog", "0004_search")]

    operations = [
        migrations.RunSQL(DROP_TRIGGER, CREATE_TRIGGER),
        migrations.AlterField(
            model_name="service",
            name="currency",
            field=models.CharField(
                default=catalog.models.default_currency,
                help_text="The ISO 4217 code of a currency in use.",
                max_length=3,
                validators=[bookit.money.validate_currency],
            ),
        ),
        migrations.AlterField(
            model_name="service",
            name="price",
            field=models.DecimalField(
                decimal_places=3,
                help_text="With at most as many decimals as its currency has.",
                max_digits=15,
                validators=[django.core.validators.MinValueValidator(Decimal(0))],
            ),
        ),
        migrations.RunSQL(CREATE_TRIGGER, DROP_TRIGGER),
    ]
