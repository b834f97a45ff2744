"""Signs users in through the API."""

from typing import Any

from accounts.models import User
from accounts.tests.factories import PASSWORD


def log_in(api: Any, user: User, password: str = PASSWORD) -> Any:
    """Return the response to a login."""
    return api.post("/auth/login", {"email": user.email, "password": password})


def refresh(api: Any, session: dict[str, Any]) -> Any:
    """Refresh a session, given as the body of a login or a refresh. Return the response."""
    return api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})


def me(api: Any, access_token: str) -> Any:
    """Return the response to a request for the profile with an access token."""
    return api.get("/me", headers={"authorization": f"Bearer {access_token}"})
