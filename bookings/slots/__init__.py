"""Slots: published sessions of a service."""
