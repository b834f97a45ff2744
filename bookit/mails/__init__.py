"""Lays out emails and sends them within daily limits, or writes them to files in development."""
