from django.db import migrations

from bookit.database.constraints import Trigger


class Migration(migrations.Migration):
    dependencies = [("bookings", "0003_triggers")]

    operations = [
        migrations.AddConstraint(
            model_name="booking",
            constraint=Trigger(
                body="""
                    BEGIN
                        RAISE EXCEPTION 'a booking that is % cannot become %', OLD.status, NEW.status
                        USING ERRCODE = 'check_violation', CONSTRAINT = 'booking_transition';
                    END
                """,
                name="booking_transition",
                triggers={
                    "booking_transition": """
                        BEFORE UPDATE ON {table} FOR EACH ROW WHEN (
                            OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (
                                ('completed', 'no_show'),
                                ('confirmed', 'cancelled'),
                                ('confirmed', 'completed'),
                                ('confirmed', 'no_show'),
                                ('held', 'cancelled'),
                                ('held', 'confirmed'),
                                ('held', 'expired'),
                                ('held', 'pending'),
                                ('no_show', 'completed'),
                                ('pending', 'cancelled'),
                                ('pending', 'completed'),
                                ('pending', 'confirmed'),
                                ('pending', 'expired'),
                                ('pending', 'no_show')
                            )
                        )
                    """
                },
            ),
        ),
    ]
