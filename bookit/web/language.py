"""The language of a response.

Django's `LocaleMiddleware` is not used. It adds `Vary: Accept-Language` to every response, so
caches would store each list of services once per language, although a list contains no text that
BookIt translates. It also looks for a language in a cookie and in the path of the URL.
"""

from collections.abc import Callable, Iterator
from typing import Any

from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.utils import translation
from django.utils.cache import patch_vary_headers

from bookit.errors import is_database_unavailable
from bookit.errors.problems import CONTENT_TYPE
from bookit.languages import SOURCE, accepted, closest
from bookit.web.middleware import database_failure

ADMIN = "/admin/"
# The paths of the pages that are translated. The API's documentation and the example page are only
# in English.
PAGES = ("/errors", ADMIN)


class LanguageMiddleware:
    """Translates the response into the language that the request accepts.

    Most clients are programs that name no language. Their requests to the API cost only the look-up
    of a header, because English is the default language of every thread.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        header = request.META.get("HTTP_ACCEPT_LANGUAGE")
        language = (accepted(header) if header else None) or SOURCE
        is_admin = request.path_info.startswith(ADMIN)
        if language == SOURCE and not is_admin:
            response = self.get_response(request)
        else:
            translation.activate(language)
            try:
                response = self.get_response(request)
                if is_admin:  # AdminLanguageMiddleware may have activated the user's language.
                    language = translation.get_language() or SOURCE
            finally:
                # The thread must not keep the language for its next request.
                translation.deactivate()
        if _is_translated(request, response):
            # A repeated response is in the language of the first response, and BookIt does not
            # store which language this is.
            if "Idempotent-Replayed" not in response.headers:
                response.headers["Content-Language"] = language
            patch_vary_headers(response, ["Accept-Language"])
        return response


class AdminLanguageMiddleware:
    """Translates the admin site into the language of the user who is signed in."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Handle a request."""
        response = self.get_response(request)
        if response.streaming and request.path_info.startswith(ADMIN):
            _stream(response, translation.get_language() or SOURCE)
        return response

    def process_view(self, request: HttpRequest, *view: Any) -> HttpResponse | None:
        """Activate the language of the signed-in user in place of the browser's language."""
        if request.path_info.startswith(ADMIN):
            try:
                user = request.user if request.user.is_authenticated else None
            except Error as error:
                if not is_database_unavailable(error):
                    raise
                return database_failure(request, error)
            if user is not None:
                translation.activate(closest(user.language))
        return None


def _is_translated(request: HttpRequest, response: HttpResponse) -> bool:
    kind = response.headers.get("Content-Type", "")
    return kind == CONTENT_TYPE or (
        kind.startswith("text/html") and request.path_info.startswith(PAGES)
    )


def _stream(response: Any, language: str) -> None:
    """Translate a streaming response, whose chunks are computed while the response is sent."""
    chunks = iter(response.streaming_content)

    def translated() -> Iterator[bytes]:
        while True:
            # Between two chunks, the thread must not keep the language: it may run other code.
            with translation.override(language):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    response.streaming_content = translated()
