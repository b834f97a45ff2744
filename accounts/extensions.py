"""The extension points of accounts, to which the apps above it add functions."""

from collections.abc import Callable
from typing import Any

from bookit.extensions import Extensions

# These functions are called with `provider` and `at` when a user becomes a provider, in the same
# transaction.
ON_NEW_PROVIDER: Extensions[Callable[..., Any]] = Extensions()
