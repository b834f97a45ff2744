"""The public list of providers, and their profiles."""
