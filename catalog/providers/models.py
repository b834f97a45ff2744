"""The public profiles of providers."""

from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy as _

MAX_BIOGRAPHY = 2000
MAX_URL = 500
# Visible ASCII characters that no URL may contain (RFC 3986), and the single quotation mark, which
# may end the URL in HTML or CSS.
UNSAFE = frozenset("\"'<>\\^`{|}")

NOT_A_PICTURE = _(
    "Enter the URL of the picture. It must begin with https://, and must not contain a user name, "
    "a password or one of these characters: \" ' < > \\ ^ ` { | }"
)


def validate_picture_url(url: str) -> None:
    """Check that a page can safely show a picture with this URL. The picture is not loaded.

    Raises:
        ValidationError: the text is not an HTTPS URL, or it contains a user name, a password or one
            of the characters `UNSAFE`.
    """
    URLValidator(schemes=["https"], message=NOT_A_PICTURE)(url)
    is_plain = "@" not in urlsplit(url).netloc and UNSAFE.isdisjoint(url)
    # Django accepts HTTPS:// too, but the constraint `profile_picture_https` does not.
    if not url.startswith("https://") or not is_plain:
        raise ValidationError(NOT_A_PICTURE, "invalid")


class Profile(models.Model):
    """The public profile of a provider or an admin. It has no row until it is filled in."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="profile",
    )
    biography = models.TextField(max_length=MAX_BIOGRAPHY, blank=True, default="")
    # Browsers load the picture from this URL. BookIt itself never does.
    picture_url = models.CharField(
        _("URL of the picture"),
        max_length=MAX_URL,
        null=True,
        blank=True,
        default=None,
        validators=[validate_picture_url],
    )

    class Meta:
        verbose_name = "provider profile"
        indexes = [
            GinIndex(
                OpClass(Upper("biography"), name="gin_trgm_ops"),
                name="profile_by_biography",
                fastupdate=False,
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(picture_url__startswith="https://"), name="profile_picture_https"
            ),
        ]

    def __str__(self) -> str:
        return str(self.user)
