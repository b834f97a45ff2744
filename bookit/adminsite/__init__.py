"""The admin site: its pages, and the messages for refused forms and actions."""
