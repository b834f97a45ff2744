"""The extension points of accounts, to which the apps above it add functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

from accounts.models import User
from bookit.extensions import Extensions

# These functions are called with `provider` and `at` when a user becomes a provider, in the same
# transaction.
ON_NEW_PROVIDER: Extensions[Callable[..., Any]] = Extensions()

# These functions end what still gives access to the data of an account, other than sessions and API
# keys, once the account of `owner` turns out to belong to the owner of its email address. They are
# called in the transaction of the password reset.
ON_NEW_OWNER: Extensions[Callable[..., None]] = Extensions()

# These functions return what is stored about a `user`, as JSON. Their names are the members of
# `GET /me/export`.
EXPORTERS: Extensions[Callable[[User], Any]] = Extensions()

# These functions erase the personal data of a `user` on behalf of `actor` at the time `at`, in one
# transaction, which has locked the user's row. Afterwards, the row itself is made anonymous.
ERASERS: Extensions[Callable[..., None]] = Extensions()


class Permission(NamedTuple):
    """What a Django permission lets a person do, and to whom it can be given.

    Admins have every permission.

    Args:
        words: what the person may do.
        own: who needs no role for it: "user" (all users, with what belongs to them), "provider"
            (on their own calendars) or "" (only admins).
        in_roles: whether a staff role can contain it.
        in_keys: whether an API key can contain it.
    """

    words: str
    own: str = ""
    in_roles: bool = True
    in_keys: bool = True


# The permissions that the API and the admin site respect, by name. Others have no effect, so they
# can be given neither to roles nor to API keys.
PERMISSIONS: Extensions[Permission] = Extensions()
