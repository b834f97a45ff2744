"""Middleware, response headers, pages and static files."""
