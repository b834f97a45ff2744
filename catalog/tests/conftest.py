"""Fixtures for the tests of the catalog."""

import pytest

from catalog import listing


@pytest.fixture
def limit_search(monkeypatch):
    """A function that sets a limit of searches, which is a part of their statements."""

    def limit(name, value):
        monkeypatch.setattr(listing, name, value)
        listing.searching.cache_clear()

    yield limit
    listing.searching.cache_clear()
