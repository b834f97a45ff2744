"""What the views need to know about the API key that authenticated a request."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True)
class UsedKey:
    """The API key that authenticated a request, as `request.auth`.

    A key narrows what its owner may do: it must permit what the request needs, and then the owner
    is checked as in any other request.

    Args:
        permissions: the permissions of the key, for example `bookings.view_booking`.
    """

    id: UUID
    permissions: frozenset[str]

    def permits(self, permission: str | None) -> bool:
        """Return whether the key can be used for something; None stands for no permission."""
        return permission in self.permissions
