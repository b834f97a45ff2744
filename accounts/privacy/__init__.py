"""Exports and erases what is stored about a user."""
