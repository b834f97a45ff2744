"""How static files are stored: scripts, styles and pictures."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class CollectedFilesStorage(CompressedManifestStaticFilesStorage):
    """Serves collected files under hashed names, and other files under their own names.

    WhiteNoise raises an error for a file that was not collected. No page would open before
    `collectstatic` has run, or after an upgrade until it has run again.
    """

    def stored_name(self, name: str) -> str:
        """Return the name under which a file is served."""
        try:
            return super().stored_name(name)
        except ValueError:
            return name
