"""Endpoints of staff roles."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.request import Request

from accounts.permissions import IsPermitted, signed_in
from accounts.roles import services as roles
from accounts.roles.models import Role
from accounts.roles.serializers import RoleSerializer
from bookit.api.etags import conditional
from bookit.api.views import RowViewSet
from bookit.idempotency.views import idempotent
from bookit.responses import Response


@extend_schema_view(
    list=extend_schema(tags=["Users"], summary="List staff roles"),
    retrieve=extend_schema(tags=["Users"], summary="Show a staff role"),
)
class RoleViewSet(RowViewSet):
    """The endpoints of staff roles, which admins and permitted staff use."""

    permission_classes = [IsPermitted]
    serializer_class = RoleSerializer
    ordering_fields = {"name": "group__name", "created_at": "created_at"}
    default_ordering = ["group__name"]
    queryset = Role.objects.all()

    @extend_schema(tags=["Users"], summary="Create a staff role")
    @idempotent
    def create(self, request: Request) -> Response:
        """Create a role. Give it to users with `PATCH /users/{id}`.

        You can add only permissions that you have yourself.
        """
        return self.created(
            roles.create_role(actor=signed_in(request), at=timezone.now(), **self.checked())
        )

    @extend_schema(tags=["Users"], summary="Change a staff role", responses=RoleSerializer)
    @conditional
    def partial_update(self, request: Request, pk: Any) -> Response:
        """Change a role. The users who hold it get or lose its permissions at once.

        You need every permission that the role has, and every permission that it gets.
        """
        return self.shown(
            roles.update_role(
                role_id=pk, actor=signed_in(request), changes=self.checked(partial=True)
            )
        )

    @extend_schema(tags=["Users"], summary="Delete a staff role")
    @conditional
    def destroy(self, request: Request, pk: Any) -> Response:
        """Delete a role. The users who hold it lose its permissions at once.

        You need every permission that the role has.
        """
        roles.delete_role(role_id=pk, actor=signed_in(request))
        return Response(status=204)
