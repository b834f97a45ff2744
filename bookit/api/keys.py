"""The facts that the views need about the API key that authenticated a request."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class UsedKey:
    """The API key that authenticated a request. Views find it in `request.auth`.

    A key can only restrict its owner: the owner must be allowed to make the request without the
    key, and the key must permit the request, too, unless the endpoint is open to anyone.

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
