"""What the apps above may want to know of accounts, sent inside of its own transaction."""

from django.dispatch import Signal

# Somebody publishes time from now on. Sent with `user` and `at`.
became_provider = Signal()
