"""The rules for the public list of providers, and for their profiles."""

from typing import Any

from django.db import transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from accounts import services as accounts
from accounts.models import User
from bookit.database.retries import retried
from bookit.errors import Forbidden
from catalog.models import Service
from catalog.providers.models import Profile


def listed() -> QuerySet[User]:
    """Return the users whom anyone may see as providers.

    They are the active users with the role `provider`, even if they have no services yet, and the
    active admins who provide an active service.
    """
    bookable = Service.objects.filter(calendar__provider=OuterRef("pk"), is_active=True)
    # The id of the user if they provide an active service, or else null. With `Exists`, PostgreSQL
    # would read the services of everybody to find those of a few admins.
    own_id = Subquery(bookable.order_by().values("calendar__provider")[:1])
    # `keepers` are the active providers and admins.
    return User.objects.all().keepers().filter(Q(role=User.Role.PROVIDER) | Q(pk=own_id))


@retried
@transaction.atomic
def update_profile(*, actor: User, changes: dict[str, Any]) -> User:
    """Change the profile of a provider or an admin. A new `name` is the new name of the account.

    Raises:
        Forbidden: the user is neither a provider nor an admin.
    """
    if not actor.is_keeper:
        raise Forbidden
    changes = dict(changes)
    if "name" in changes:
        accounts.rename(user=actor, name=changes.pop("name"))
    if changes:
        Profile.objects.update_or_create(user=actor, defaults=changes)
    return actor
