"""The commands that belong to no domain."""
