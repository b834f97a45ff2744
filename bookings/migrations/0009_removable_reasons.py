from django.conf import settings
from django.db import migrations

import bookit.database.constraints


class Migration(migrations.Migration):
    dependencies = [
        ("bookings", "0008_delete_mailcount"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="bookingevent",
            name="booking_event_is_final",
        ),
        migrations.AddConstraint(
            model_name="bookingevent",
            constraint=bookit.database.constraints.Trigger(
                body="BEGIN\n    IF TG_OP = 'UPDATE' AND OLD.data ? 'reason' THEN\n        OLD.data := OLD.data - 'reason';\n        IF NEW IS NOT DISTINCT FROM OLD THEN\n            RETURN NEW;\n        END IF;\n    END IF;\n    RAISE EXCEPTION 'booking events are append-only' USING ERRCODE = 'restrict_violation';\nEND",
                name="booking_event_is_final",
                triggers={
                    "booking_event_append_only": "BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW"
                },
            ),
        ),
    ]
