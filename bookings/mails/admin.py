"""The texts of emails in the admin site: what each email says, and how it will look."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.mail import EmailMultiAlternatives
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _
from django.views.decorators.clickjacking import xframe_options_sameorigin

from accounts.links import services as links
from accounts.links.kinds import KINDS
from bookings.mails import samples, texts
from bookings.mails.models import MailText
from bookings.mails.occasions import ATTENDEE, LABEL, NEWS, PROVIDER
from bookit.adminsite.pages import StrictAdmin
from bookit.languages import SOURCE, known, speaking
from bookit.web.headers import content_security_policy

# The media query under which the layout of emails uses dark colours.
IF_DARK = "@media (prefers-color-scheme: dark)"

# When each kind of email is sent.
OCCASIONS = {
    "requested": gettext_lazy(
        "A customer books or takes over a booking, and it has to be confirmed."
    ),
    "booked": gettext_lazy(
        "A customer books and no confirmation is needed, or takes over a confirmed booking."
    ),
    "confirmed": gettext_lazy("A request is confirmed."),
    "moved": gettext_lazy("A booking is moved to another time."),
    "cancelled": gettext_lazy("A booking is cancelled or given to another customer."),
    "not-confirmed": gettext_lazy("A request is not confirmed before its start."),
    "reminder": gettext_lazy("A booking starts soon."),
    "seat-offered": gettext_lazy("A seat becomes free for the next person on a waitlist."),
    "seat-passed-on": gettext_lazy("A person on a waitlist does not confirm their seat in time."),
    "seat-withdrawn": gettext_lazy("A seat that is kept for a person on a waitlist is cancelled."),
    "queue-cancelled": gettext_lazy("A session for which people are waiting is cancelled."),
    "queue-ended": gettext_lazy("A session can no longer be booked, and people are still waiting."),
}


@dataclass(frozen=True)
class Page:
    """The page of a text, which is for one language or for every language.

    Args:
        language: empty if the text is for every language.
        has_words: whether the text contains words of the operator.
    """

    key: str
    language: str
    name: str
    url: str
    has_words: bool


@dataclass(frozen=True)
class Kind:
    """A kind of email as the list shows it.

    Args:
        changed: the pages that contain words of the operator.
    """

    kind: str
    occasion: str
    label: str
    attendee: str
    provider: str
    changed: list[Page]
    url: str


class MailTextForm(forms.ModelForm):
    """A form that shows the texts in use, and stores texts that differ from `texts.standard`."""

    class Meta:
        model = MailText
        fields = [LABEL, ATTENDEE, PROVIDER]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.news = NEWS[self.instance.kind]
        self.standard = texts.standard(self.instance)
        for name, field in self.fields.items():
            standard = self.standard[name]
            self.initial[name] = self.initial.get(name) or standard
            help_text = _("Empty: “%(standard)s”") % {"standard": standard}
            usable = ", ".join(f"{{{each}}}" for each in texts.placeholders(self.news, name))
            if usable:
                help_text += " " + _("You can use %(known)s.") % {"known": usable}
            field.help_text = help_text
            if self.instance.language:
                field.widget.attrs["lang"] = self.instance.language
            if isinstance(field.widget, forms.Textarea):
                field.widget.attrs["rows"] = 5

    def clean(self) -> dict[str, Any]:
        """Return the texts, each replaced by an empty text if it equals `texts.standard`.

        A field that the operator left alone keeps its stored value. If that is empty, the field
        showed `texts.standard`, which may have changed since the page was opened. What the field
        showed would then be stored as the operator's own text.
        """
        cleaned: dict[str, Any] = super().clean() or {}
        for name in [name for name in self.fields if name in cleaned]:
            if name not in self.changed_data:
                cleaned[name] = getattr(self.instance, name)
            cleaned[name] = cleaned[name].replace("\r\n", "\n").strip()
            try:
                texts.check(self.news, name, cleaned[name])
            except ValidationError as error:
                self.add_error(name, error)
                continue
            if cleaned[name] == self.standard[name]:
                cleaned[name] = ""
        return cleaned


@admin.register(MailText)
class MailTextAdmin(StrictAdmin):
    """The words of emails about bookings and waitlists, which operators can change, with a preview.

    Only words that an operator has saved have a row. The list shows all kinds. Each kind has a page
    "Every language" and a page for each single language, whether or not their texts have a row. The
    list also shows the emails about accounts, which have only a preview.
    """

    list_title = gettext_lazy("What your emails say")
    form = MailTextForm
    list_filter = ["updated_at"]
    search_fields = ["key", "label"]
    actions = None

    class Media:
        css = {"all": ["bookit/mails.css"]}

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: every kind already has a page."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: operators empty the fields to go back to `texts.standard`."""
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> MailText | None:
        """Return the texts of a kind in a language, even if they have no row."""
        return texts.text_of(object_id)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the fields of this kind of email: its label, and a text for each reader."""
        return texts.fields_of(NEWS[obj.kind]) if obj else [LABEL, ATTENDEE, PROVIDER]

    def get_urls(self) -> list[Any]:
        """Return the URLs of the pages and of the previews."""
        preview = self.admin_site.admin_view(xframe_options_sameorigin(self.preview_view))
        account = self.admin_site.admin_view(self.account_view)
        sample = self.admin_site.admin_view(xframe_options_sameorigin(self.account_preview_view))
        name = "bookings_mailtext"
        return [
            path("account/<slug:kind>/", account, name=f"{name}_account"),
            path("account/<slug:kind>/preview/", sample, name=f"{name}_account_preview"),
            path("<str:object_id>/preview/<slug:audience>/", preview, name=f"{name}_preview"),
            *super().get_urls(),
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show every kind of email."""
        accounts = [
            (kind.subject, kind.lead, reverse("admin:bookings_mailtext_account", args=[name]))
            for name, kind in KINDS.items()
        ]
        shown = {"kinds": _kinds(), "accounts": accounts, "title": _("What your emails say")}
        return super().changelist_view(request, {**(extra_context or {}), **shown})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the texts of a kind in a language next to a preview of the email."""
        shown = {**(extra_context or {}), **_shown(unquote(object_id))}
        return super().change_view(request, object_id, form_url, shown)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Store the texts by calling the service."""
        words = {name: form.cleaned_data.get(name, "") for name in (LABEL, ATTENDEE, PROVIDER)}
        texts.change(key=obj.key, at=timezone.now(), **words)

    def preview_view(self, request: HttpRequest, object_id: str, audience: str) -> HttpResponse:
        """Show a sample of an email, with the words of the form or the words in use.

        The email is in the language of the text. If the text is for every language, BookIt's own
        words are in the chosen language, or else in the language of the signed-in user.
        """
        text = texts.text_of(object_id)
        if not self.has_view_permission(request, text):
            raise PermissionDenied
        if text is None or audience not in texts.fields_of(NEWS[text.kind]) or audience == LABEL:
            raise Http404
        errors: Any = None
        if request.method == "POST":
            form = self.get_form(request, text, change=True)(request.POST, instance=text)
            errors = form.errors
        if errors:
            shown = {"errors": errors}
            response = render(request, "admin/bookings/mailtext/preview_error.html", shown)
            response["Content-Security-Policy"] = content_security_policy(frame_ancestors="'self'")
            return response
        # The text for every language is sent in place of the empty fields of this language's text.
        every = texts.text_of(text.kind) if text.language else None
        words = {each.key: each for each in (every, text) if each}
        language = text.language or _language(request)
        with speaking(language):
            mail = samples.mail(text.kind, audience, words)
        return _preview(request, mail.message(), language)

    def account_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Show the page of an email about an account, with its preview."""
        self._check_account(request, kind)
        shown = {
            **self.admin_site.each_context(request),
            "title": KINDS[kind].subject,
            "media": self.media,
            "preview": reverse("admin:bookings_mailtext_account_preview", args=[kind]),
            "languages": settings.LANGUAGES,
        }
        return render(request, "admin/bookings/mailtext/account.html", shown)

    def account_preview_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Show an email about a made-up account. Its token is made up too."""
        self._check_account(request, kind)
        language = _language(request)
        with speaking(language):
            message = links.sample(kind=KINDS[kind])
        return _preview(request, message, language)

    def _check_account(self, request: HttpRequest, kind: str) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied
        if kind not in KINDS:
            raise Http404


def _language(request: HttpRequest) -> str:
    """Return the language chosen for a preview, or else the language of the signed-in user."""
    chosen = request.POST.get("preview_language") or request.GET.get("preview_language", "")
    return known(chosen) or get_language() or SOURCE


def _preview(request: HttpRequest, message: EmailMultiAlternatives, language: str) -> HttpResponse:
    """Return a page that shows an email: in light and dark colours, and as plain text."""
    html = str(message.alternatives[0][0])
    # `light dark` is the `color-scheme` of the layout.
    shown = {
        "sender": message.from_email,
        "to": ", ".join(message.to),
        "subject": message.subject,
        "light": html.replace(IF_DARK, "@media not all"),
        "dark": html.replace(IF_DARK, "@media all").replace("light dark", "dark"),
        "text": message.body,
        "language": language,
    }
    response = render(request, "admin/bookings/mailtext/preview.html", shown)
    logo = settings.BUSINESS_LOGO_URL
    response["Content-Security-Policy"] = content_security_policy(
        default_src="'none'",
        style_src="'unsafe-inline'",
        img_src="/".join(logo.split("/")[:3]) or "'none'",
        form_action="'none'",
        frame_ancestors="'self'",
    )
    return response


def _kinds() -> list[Kind]:
    changed = texts.in_use()
    kinds = []
    for kind, news in NEWS.items():
        shown = texts.applied(news, changed)
        kinds.append(
            Kind(
                kind=kind,
                occasion=str(OCCASIONS[kind]),
                label=shown.label,
                attendee=shown.attendee,
                provider=shown.provider,
                changed=[page for page in _pages(kind, changed) if page.has_words],
                url=reverse("admin:bookings_mailtext_change", args=[kind]),
            )
        )
    return kinds


def _pages(kind: str, changed: Mapping[str, MailText]) -> list[Page]:
    """Return the pages of a kind of email.

    Args:
        changed: the operator's texts by their keys.
    """
    pages = []
    for language, name in [("", _("Every language")), *settings.LANGUAGES]:
        text = MailText(key=texts.key_of(kind, language))
        pages.append(
            Page(
                key=text.key,
                language=language,
                name=name,
                url=reverse("admin:bookings_mailtext_change", args=[text.key]),
                has_words=changed.get(text.key, text).has_words,
            )
        )
    return pages


def _shown(key: str) -> dict[str, Any]:
    """Return what the page of a text shows besides the form."""
    if not texts.is_known(key):
        return {}
    kind = MailText(key=key).kind
    news = NEWS[kind]
    changed = texts.in_use()
    pages = _pages(kind, changed)
    current = next(page for page in pages if page.key == key)
    readers = {
        ATTENDEE: _("As the customer sees it"),
        PROVIDER: _("As the provider sees it"),
    }
    return {
        "title": texts.applied(news, changed).label,
        # The subtitle appears only in the title of the window, because the page has tabs.
        "subtitle": current.name,
        "pages": pages,
        "current": current,
        "occasion": OCCASIONS[kind],
        "languages": settings.LANGUAGES,
        "readers": [
            (name, _preview_url(key, audience))
            for audience, name in readers.items()
            if getattr(news, audience)
        ],
    }


def _preview_url(key: str, audience: str) -> str:
    return reverse("admin:bookings_mailtext_preview", args=[key, audience])
