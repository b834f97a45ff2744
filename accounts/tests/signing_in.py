"""Signs users in through the API."""

from typing import Any

from accounts.models import User
from accounts.tests.factories import PASSWORD


def log_in(api: Any, user: User, password: str = PASSWORD) -> Any:
    """Return the response to a login."""
    return api.post("/auth/login", {"email": user.email, "password": password})


def refresh(api: Any, session: dict[str, Any]) -> Any:
    """Return the response to a refresh. `session` is the JSON of an earlier login or refresh."""
    return api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})


def me(api: Any, access_token: str) -> Any:
    """Return the response to a request for the profile with an access token."""
    return api.get("/me", headers={"authorization": f"Bearer {access_token}"})
