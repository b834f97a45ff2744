"""How the OpenAPI document describes authentication."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from rest_framework.permissions import AllowAny

from accounts.extensions import PERMISSIONS


class BearerScheme(OpenApiAuthenticationExtension):
    """Describes access tokens, and API keys for the operations that accept them."""

    target_class = "accounts.authentication.BearerAuthentication"
    name = ["bearer", "key"]

    def get_security_requirement(self, auto_schema: AutoSchema) -> list[dict[str, list[Any]]]:
        """Return the security schemes of the operation. A client needs only one of them."""
        view: Any = auto_schema.view
        permission = PERMISSIONS.get(view.needed_permission)
        is_public = all(isinstance(each, AllowAny) for each in view.get_permissions())
        takes_keys = is_public or (permission is not None and permission.in_keys)
        return [{"bearer": []}, *([{"key": []}] if takes_keys else [])]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        """Return the definitions of the schemes, in the order of `name`."""
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "JWT",
                "description": "The `access_token` from `POST /auth/login`.",
            },
            {
                "type": "http",
                "scheme": "bearer",
                "description": (
                    "An API key (`bk_...`) from `POST /me/api-keys`. The operations that do not "
                    "name this scheme refuse API keys."
                ),
            },
        ]
