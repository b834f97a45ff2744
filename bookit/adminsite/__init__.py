"""The admin site: its pages, what they refuse, and the messages that say so."""
