"""The facts that the views need about the API key that authenticated a request."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class UsedKey:
    """The API key that authenticated a request. Views find it in `request.auth`.

    A key restricts its owner: the key must permit the request, and the owner must also have the
    permission, as for a request without a key.

    Args:
        permissions: the permissions of the key, for example `bookings.view_booking`.
    """

    id: UUID
    permissions: frozenset[str]

    def permits(self, permission: str | None) -> bool:
        """Return whether the key has this permission.

        None means that no permission covers the request. No key permits such a request.
        """
        return permission in self.permissions
