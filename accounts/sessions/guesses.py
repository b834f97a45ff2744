"""A limit on wrong passwords per account, even if they come from many IP addresses.

An attempt is counted before its password is checked, so the limit also holds for concurrent
guesses. If the password is right, all attempts that share this attempt's limit are forgotten.
Attempts on accounts that do not exist are counted in the same way, so the limit does not reveal who
has an account.
"""

from django.utils.functional import cached_property
from uuid_utils.compat import uuid7

from accounts.models import User
from accounts.sessions.models import Session
from bookit.api.addresses import network
from bookit.errors import LimitExceeded
from bookit.ratelimits.counting import count, forget


class Guess:
    """One attempt to give the password of an account.

    A network is known if any stored session of the account began there, even if the session has
    ended. Each known network has its own limit, and all unknown networks share one limit per
    account. Strangers who use up the shared limit therefore do not lock out an owner who is in a
    known network.

    Args:
        user: the owner of the account, or None if no account has the email address.
        email: the email address that was given.
        address: the IP address of the client, or None if it is unknown.
    """

    def __init__(self, *, user: User | None, email: str, address: str | None) -> None:
        self.user, self.email, self.network = user, email, network(address)

    @cached_property
    def _counter(self) -> str:
        # The same query runs if there is no account, so that the response takes the same time.
        pk = uuid7() if self.user is None else self.user.pk
        is_known = Session.objects.filter(user=pk, address__within=self.network).exists()
        if self.user is None:
            return f"address {self.email}"
        return f"account {pk} {self.network if is_known else 'strangers'}"

    def count(self) -> None:
        """Count this attempt.

        Raises:
            LimitExceeded: too many wrong passwords were tried.
        """
        counted = count("password", self._counter)
        if not counted.allowed:
            raise LimitExceeded(counted.seconds, counted.headers)

    def forgive(self) -> None:
        """Forget all attempts that share this attempt's limit, because the password was right."""
        forget("password", self._counter)
