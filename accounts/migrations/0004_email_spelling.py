import re
import unicodedata

import idna
from django.db import migrations, models

import accounts.emails


def normalised(address):
    """Return an address as it must be spelled from now on; None if nothing makes one of it."""
    local, _, domain = unicodedata.normalize("NFKC", address).lower().rpartition("@")
    try:
        spelled = f"{local}@{idna.encode(domain, uts46=True, std3_rules=True).decode()}"
    except idna.IDNAError:
        return None
    return spelled if re.fullmatch(r"[!-~]+@[a-z0-9.-]+", spelled) else None


def respell(apps, schema_editor):
    """Normalise the addresses that are stored; where that is not possible, close the account.

    An account whose normalised address belongs to another account is a lookalike of it. It is
    deactivated and keeps its bookings; its address becomes one that leads nowhere. An admin can
    give it another address and activate it again.
    """
    users = apps.get_model("accounts", "User").objects
    for user in users.exclude(email__regex="^[!-~]+$").order_by("created_at", "id"):
        spelled = normalised(user.email)
        if spelled and not users.filter(email=spelled).exists():
            users.filter(pk=user.pk).update(email=spelled)
            print(f"\n  Account {user.pk}: {user.email!a} is now {spelled}", end="")  # noqa: T201
        else:
            users.filter(pk=user.pk).update(email=f"{user.pk}@lookalike.invalid", is_active=False)
            print(f"\n  Account {user.pk}: {user.email!a} was deactivated", end="")  # noqa: T201


class Migration(migrations.Migration):
    """Let an address have one spelling, and with it one account."""

    dependencies = [("accounts", "0003_sessions_end")]

    operations = [
        migrations.RunPython(respell, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="user",
            name="email",
            field=models.EmailField(
                max_length=254,
                validators=[accounts.emails.validate_spelling],
                verbose_name="email address",
            ),
        ),
        migrations.AddConstraint(
            model_name="user",
            constraint=models.CheckConstraint(
                condition=models.Q(("email__regex", "^[!-~]+$")), name="user_email_ascii"
            ),
        ),
    ]
