"""What is stored about a user: exporting it, and erasing it."""
