"""The extension points of accounts: functions and permissions that this and higher apps add."""

from collections.abc import Callable
from typing import Any, NamedTuple

from accounts.models import User
from bookit.extensions import Extensions

# When a user becomes a provider, or is added as one, these functions are called with `provider` and
# `at`, in the transaction of that change.
ON_NEW_PROVIDER: Extensions[Callable[..., None]] = Extensions()

# When an existing user becomes an active admin, these functions are called with `admin` and `at`,
# in the transaction of that change.
ON_NEW_ADMIN: Extensions[Callable[..., None]] = Extensions()

# An account with an unverified email address may have been registered by somebody else. When the
# owner of the email address resets the password, these functions are called with the account as
# `owner`, in the transaction of the reset. The reset itself revokes sessions and API keys. These
# functions revoke all other access to the data of the account.
ON_NEW_OWNER: Extensions[Callable[..., None]] = Extensions()

# Each function returns a part of what is stored about a `user`, for the response of
# `GET /me/export`. The name under which a function is added is the name of its part. If a part can
# have very many rows, its function is a generator of lists of rows.
EXPORTERS: Extensions[Callable[[User], Any]] = Extensions()

# These functions erase the personal data of a `user` on behalf of `actor`, at the time `at`. All of
# them are called in one transaction, which has locked the user's row and makes it anonymous after
# the calls. They are called again later, for data that other requests have stored in the meantime
# (`accounts.privacy.services.erase_again`). Then the row is anonymous already, and `actor` is the
# user.
ERASERS: Extensions[Callable[..., None]] = Extensions()


class Permission(NamedTuple):
    """What a Django permission allows, who has it, and whether roles and API keys can contain it.

    Admins have every permission.

    Args:
        words: what the permission allows.
        own: who has the permission without a staff role: "user" (all users, for what belongs to
            them), "provider" (providers, for their own calendars) or "" (only admins).
        in_roles: whether a staff role can contain it.
        in_keys: whether an API key can contain it.
    """

    words: Any
    own: str = ""
    in_roles: bool = True
    in_keys: bool = True


# The permissions that the API and the admin site check, by name. Other Django permissions have no
# effect, so neither roles nor API keys can contain them.
PERMISSIONS: Extensions[Permission] = Extensions()
