"""What surrounds every request: middleware, headers, pages and static files."""
