"""Staff roles: named sets of permissions that admins give to users."""
