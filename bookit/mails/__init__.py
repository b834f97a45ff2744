"""Emails: how they are sent, their daily limits, and emails as files."""
