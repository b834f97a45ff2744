"""The files that pages need: scripts, styles and pictures."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class CollectedFilesStorage(CompressedManifestStaticFilesStorage):
    """Names collected files by their hashes, and files that were never collected by their own.

    WhiteNoise would raise for the latter: without `collectstatic`, and after an upgrade until it
    has run again, no page would open.
    """

    def stored_name(self, name: str) -> str:
        """Return the name under which a file is served."""
        try:
            return super().stored_name(name)
        except ValueError:
            return name
