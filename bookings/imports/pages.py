"""The page of the admin site that imports CSV files: upload, check, confirm, result.

Nothing is stored between these steps, so no file is left behind if somebody closes the page. The
page that shows the result of the check contains the text of the file in a hidden field. The browser
sends this text back when the import is confirmed.
"""

from collections.abc import Iterator
from typing import Any

from django import forms
from django.contrib import admin
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from accounts.models import User
from bookings.imports.files import ENCODINGS, decode
from bookings.imports.lines import KINDS, Line
from bookings.imports.services import Report, import_file, import_in_steps
from bookings.models import Booking
from bookit import spreadsheets
from bookit.adminsite.extensions import PAGES, Page
from bookit.adminsite.links import list_of
from bookit.adminsite.menu import Menu
from bookit.adminsite.refusals import REFUSALS, message_of
from bookit.errors import is_database_unavailable
from bookit.json import dumps
from catalog.models import Calendar, Service

# The maximum size of the text of a file, in UTF-8, as the hidden field sends it. A request can have
# 1 MiB. The rest is left for the other fields, and for the carriage returns that browsers add.
MAX_BYTES = 1_000_000
# The page shows at most this many problems.
MAX_SHOWN = 200
# The maximum number of lines if the browser does not run the script. Without the script, the
# browser shows nothing until the import is done, and the server gives up after ten seconds (by
# default; `bookit.deadlines.REQUEST_LIMIT`).
MAX_UNSCRIPTED = 1000
# The type of a response that reports the progress, one JSON document in each line.
PROGRESS = "application/x-ndjson"
MODELS = {"customers": User, "calendars": Calendar, "services": Service, "bookings": Booking}


class UploadForm(forms.Form):
    """A file to check."""

    kind = forms.ChoiceField(
        label=gettext_lazy("What is in the file"),
        choices=[(name, form.words) for name, form in KINDS.items()],
        widget=forms.RadioSelect,
        initial="customers",
    )
    file = forms.FileField(
        label=gettext_lazy("CSV file"),
        widget=forms.FileInput(attrs={"accept": ".csv,.tsv,.txt,text/csv"}),
    )
    encoding = forms.ChoiceField(
        label=gettext_lazy("Encoding"), choices=[*ENCODINGS.items()], required=False
    )

    def clean(self) -> dict[str, Any]:
        """Add the text of the file as `text`, and its name as `name`."""
        cleaned = super().clean() or self.cleaned_data
        file = cleaned.get("file")
        if file and "encoding" in cleaned:
            try:
                cleaned["text"] = decode(file.read(), cleaned["encoding"])
            except REFUSALS as error:
                self.add_error("file", message_of(error))
            else:
                cleaned["name"] = file.name
                if len(cleaned["text"].encode()) > MAX_BYTES:
                    text = _("The file is too large for this page. Use the command import_csv.")
                    self.add_error("file", text)
        return cleaned


class ConfirmForm(forms.Form):
    """A checked file to import."""

    kind = forms.ChoiceField(choices=[(name, form.words) for name, form in KINDS.items()])
    name = forms.CharField(max_length=300, required=False)
    text = forms.CharField(strip=False)


@require_http_methods(["GET", "HEAD", "POST"])
def page(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Show the form, check a file, or import a file that was checked."""
    if request.method != "POST":
        return _page(request, {"form": UploadForm()})
    is_applied = "apply" in request.POST
    form = ConfirmForm(request.POST) if is_applied else UploadForm(request.POST, request.FILES)
    if not form.is_valid():
        # The page fills in the form of a checked file, so the form is valid unless a part of the
        # request was lost or changed.
        shown = UploadForm() if is_applied else form
        return _answer(request, {"form": shown, "is_incomplete": is_applied})
    return _check_or_import(request, form.cleaned_data, is_applied=is_applied)


def _check_or_import(
    request: HttpRequest, file: dict[str, Any], *, is_applied: bool
) -> HttpResponse | StreamingHttpResponse:
    call: dict[str, Any] = {
        "kind": file["kind"],
        "text": file["text"],
        "actor": request.user,
        "at": timezone.now(),
        "is_applied": is_applied,
    }
    if PROGRESS in request.headers.get("Accept", ""):
        return StreamingHttpResponse(_progress(request, file, call), content_type=PROGRESS)
    if file["text"].count("\n") > MAX_UNSCRIPTED:
        text = _("Without JavaScript, a file can have at most %(most)d lines. Divide it.")
        return _page(request, _refused(file, text % {"most": MAX_UNSCRIPTED}))
    try:
        report = import_file(**call)
    except REFUSALS as error:
        return _page(request, _refused(file, message_of(error)))
    return _page(request, _result(file, report))


def _progress(request: HttpRequest, file: dict[str, Any], call: dict[str, Any]) -> Iterator[bytes]:
    """Check or import a file, and yield JSON documents: the progress, then the result as HTML."""
    steps = import_in_steps(**call)
    try:
        while True:
            progress = next(steps)
            yield dumps({"done": progress.done, "total": progress.total}) + b"\n"
    except StopIteration as end:
        result = _result(file, end.value)
    except REFUSALS as error:
        result = _refused(file, message_of(error))
    except Error as error:
        if not is_database_unavailable(error):
            raise
        # The response has begun, so no middleware can show this error. If the connection was lost
        # during the commit, nobody knows whether the lines were stored.
        text = _(
            "The database is unavailable or took too long. Check the file again: if its lines were "
            "imported, they are skipped."
        )
        result = _refused(file, text)
    yield _document(request, result)


def _document(request: HttpRequest, shown: dict[str, Any]) -> bytes:
    html = render_to_string("admin/bookings/import_steps.html", _context(shown), request)
    return dumps({"html": html}) + b"\n"


def _answer(request: HttpRequest, shown: dict[str, Any]) -> HttpResponse | StreamingHttpResponse:
    """Return the page or, if its script asks, only the HTML that changes."""
    if PROGRESS in request.headers.get("Accept", ""):
        return HttpResponse(_document(request, shown), content_type=PROGRESS)
    return _page(request, shown)


def _page(request: HttpRequest, shown: dict[str, Any]) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": _("Import"), **_context(shown)}
    return TemplateResponse(request, "admin/bookings/import.html", context)


def _context(shown: dict[str, Any]) -> dict[str, Any]:
    return {"kinds": _kinds(), "limit": MAX_BYTES, **shown}


def _refused(file: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the form again, with the reason why the file was not checked or imported."""
    form = UploadForm({"kind": file["kind"], "encoding": file.get("encoding", "")})
    # This finds only the error that the file is missing, which the real reason replaces.
    form.is_valid()
    form.errors.pop("file", None)
    form.add_error("file", text)
    return {"form": form, "name": file["name"]}


def _result(file: dict[str, Any], report: Report) -> dict[str, Any]:
    """Return what the page shows after a file was checked or imported."""
    kind = file["kind"]
    return {
        "report": report,
        "kind": kind,
        "words": KINDS[kind].words,
        "name": file["name"],
        "text": file["text"],
        "problems": report.problems[:MAX_SHOWN],
        "left_out": len(report.problems[MAX_SHOWN:]),
        "wrong": len({problem.line for problem in report.problems}),
        "list": list_of(MODELS[kind]),
        "again": reverse("admin:imports"),
    }


def _kinds() -> list[dict[str, Any]]:
    """Return the kinds of files, with their columns."""
    return [
        {
            "name": name,
            "words": form.words,
            "about": form.about,
            "example": reverse("admin:import_example", args=[name]),
            "columns": [
                (column, field.required, field.help_text)
                for column, field in form.base_fields.items()
            ],
        }
        for name, form in KINDS.items()
    ]


@require_safe
def example(request: HttpRequest, kind: str) -> StreamingHttpResponse:
    """Return an example of a CSV file: the columns of a kind, and a few lines.

    Raises:
        Http404: there is no such kind.
    """
    if kind not in KINDS:
        raise Http404
    return StreamingHttpResponse(
        spreadsheets.encoded(example_of(KINDS[kind])),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{kind}.csv"'},
    )


def example_of(form: type[Line]) -> Iterator[str]:
    """Yield an example of a CSV file: the columns of a kind, and a few lines."""
    columns = [*form.base_fields]
    return spreadsheets.written(
        columns, ([line.get(name, "") for name in columns] for line in form.example)
    )


PAGES.add("imports")(
    Page(
        Menu.SYSTEM,
        gettext_lazy("Import"),
        "admin:imports",
        urls=[
            path("import/", page, name="imports"),
            path("import/<slug:kind>.csv", example, name="import_example"),
        ],
    )
)
