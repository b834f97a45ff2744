"""The admin site: its pages, what they refuse, and how they say so."""
