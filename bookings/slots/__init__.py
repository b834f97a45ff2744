"""Slots: the published sessions of services."""
