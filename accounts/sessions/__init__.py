"""Sessions: signing in to the API or the admin site, tokens, and signing out."""
