from django.db import migrations


class Migration(migrations.Migration):
    """Let the daily pruning find expired tokens, which simplejwt leaves without an index."""

    dependencies = [
        ("accounts", "0001_initial"),
        ("token_blacklist", "0013_alter_blacklistedtoken_options_and_more"),
    ]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX outstanding_token_by_expiry ON token_blacklist_outstandingtoken (expires_at)",
            "DROP INDEX outstanding_token_by_expiry",
        ),
    ]
