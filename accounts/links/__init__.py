"""Emails about accounts, and the single-use tokens in them."""
