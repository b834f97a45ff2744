"""Fixtures for the tests of the catalog."""

import pytest

from catalog import listing


@pytest.fixture
def limit_search(monkeypatch):
    """Yield a function that changes a limit of searches.

    Statements contain the limits, so the function also clears the cache of statements.
    """

    def limit(name, value):
        monkeypatch.setattr(listing, name, value)
        listing.searching.cache_clear()

    yield limit
    listing.searching.cache_clear()
