"""Writes emails to files, for development."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.utils import timezone
from uuid_utils import uuid7

logger = logging.getLogger(__name__)


class FileBackend(BaseEmailBackend):
    """Writes each email to its own file, and logs only the path of the file.

    Django's file backend writes all emails of a connection to one file, which email clients cannot
    open.
    """

    def __init__(self, *args: Any, file_path: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django before 6.1 does not pass `file_path`.
        self.folder = Path(file_path or settings.EMAIL_FILE_PATH)  # type: ignore[misc]

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Write the emails, and return their number.

        Raises:
            OSError: the folder cannot be written to.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for message in email_messages:
            name = f"{timezone.now():%Y%m%d-%H%M%S}-{uuid7().hex[-6:]}.eml"
            path = self.folder / name
            # Only the operator may read the file, because an email may contain a link that resets a
            # password.
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(message.message().as_bytes())
            logger.info("mail written to %s", _relative(path))
        return len(email_messages)


def _relative(path: Path) -> Path:
    return path.relative_to(settings.BASE_DIR) if path.is_relative_to(settings.BASE_DIR) else path
