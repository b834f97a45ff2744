"""The admin site: its pages, and the messages that say what they refuse."""
