"""Sends emails within daily limits, or writes them to files in development."""
