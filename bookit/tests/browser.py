"""The system's Chromium."""

import shutil

import pytest

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
