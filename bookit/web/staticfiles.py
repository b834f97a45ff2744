"""The storage of static files: scripts, styles and pictures."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class CollectedFilesStorage(CompressedManifestStaticFilesStorage):
    """Serves collected files under hashed names, and other files under their own names.

    WhiteNoise's own storage raises an error for a file that was not collected. With that storage,
    pages would not open after an installation or an upgrade until `collectstatic` has run.
    """

    def stored_name(self, name: str) -> str:
        """Return the name under which a file is served."""
        try:
            return super().stored_name(name)
        except ValueError:
            return name
