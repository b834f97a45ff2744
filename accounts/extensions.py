"""The extension points of accounts, to which the apps above it add functions."""

from collections.abc import Callable
from typing import Any

from accounts.models import User
from bookit.extensions import Extensions

# These functions are called with `provider` and `at` when a user becomes a provider, in the same
# transaction.
ON_NEW_PROVIDER: Extensions[Callable[..., Any]] = Extensions()

# These functions return what is stored about a `user`, as JSON. Their names are the members of
# `GET /me/export`.
EXPORTERS: Extensions[Callable[[User], Any]] = Extensions()

# These functions erase the personal data of a `user` on behalf of `actor` at the time `at`, in one
# transaction, which has locked the user's row. Afterwards, the row itself is made anonymous.
ERASERS: Extensions[Callable[..., None]] = Extensions()
