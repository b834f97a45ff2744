"""The calls that higher apps add to accounts."""

from collections.abc import Callable
from typing import Any

from bookit.extensions import Extensions

# They are called with `provider` and `at`, in the transaction in which a user becomes a provider.
ON_NEW_PROVIDER: Extensions[Callable[..., Any]] = Extensions()
