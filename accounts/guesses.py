"""A limit on wrong passwords per account, from however many addresses they come.

It is counted before a password is checked and forgotten when the password is right, so that of
many concurrent guesses no more than the limit are checked. Accounts that do not exist are counted
alike: the limit does not tell who has an account.
"""

from django.utils.functional import cached_property
from uuid_utils.compat import uuid7

from accounts.models import Session, User
from bookit.api.addresses import network
from bookit.api.throttles import count, forget
from bookit.errors import LimitExceeded


class Guess:
    """One attempt to give the password of an account.

    All strangers share one allowance per account. An origin from which somebody has signed in to
    the account has an allowance of its own: strangers who use up theirs do not lock the owner out.

    Args:
        user: whose password it is; None for an address without an account.
        email: the address that was given.
        address: where the attempt comes from.
    """

    def __init__(self, *, user: User | None, email: str, address: str | None) -> None:
        self.user, self.email, self.origin = user, email, network(address)

    @cached_property
    def _who(self) -> str:
        # The same query without an account, so that the answer takes as long.
        pk = uuid7() if self.user is None else self.user.pk
        is_known = Session.objects.filter(user=pk, address__within=self.origin).exists()
        if self.user is None:
            return f"address {self.email}"
        return f"account {pk} {self.origin if is_known else 'strangers'}"

    def count(self) -> None:
        """Count this attempt.

        Raises:
            LimitExceeded: there were too many wrong ones.
        """
        counted = count("password", self._who)
        if not counted.allowed:
            raise LimitExceeded(counted.seconds)

    def was_right(self) -> None:
        """Forget this attempt and those before it: only wrong ones count."""
        forget("password", self._who)
