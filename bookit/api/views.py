"""The base classes of all view sets: the checks before an action, and how rows are represented."""

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from typing import Any
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist, TooManyFieldsSent
from django.db.models import Model, QuerySet, UUIDField
from django.http import Http404, HttpRequest, HttpResponse
from django.urls.converters import UUIDConverter, register_converter
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from rest_framework import serializers, viewsets
from rest_framework.permissions import SAFE_METHODS, AllowAny, BasePermission
from rest_framework.request import Request
from rest_framework.utils.formatting import lazy_format
from rest_framework.views import APIView

from bookit import deadlines
from bookit.api.etags import IF_MATCH, tagged
from bookit.api.expand import EXPAND, Expansion, Rows, expand
from bookit.api.filters import AnyOfFilter, CommaSeparatedChoices
from bookit.api.keys import UsedKey
from bookit.api.schema import IDEMPOTENCY_KEY
from bookit.api.serializers import RowSerializer
from bookit.database import replicas
from bookit.database.citus.lookups import calendar_of, is_spread
from bookit.database.prepared import Bound, Change, Prepared
from bookit.errors.refusals import refuse
from bookit.responses import Response
from bookit.times import zone


class AnyCaseUUIDConverter(UUIDConverter):
    """A UUID in a path, in lower or upper case. Any other text is a 404."""

    regex = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"


# The verbs in the names of Django's permissions: `bookings.change_booking`.
VERBS = {"GET": "view", "HEAD": "view", "POST": "add", "PATCH": "change", "DELETE": "delete"}

# Parameters that may be empty. An empty cursor means the first page. An empty token gets the same
# response as any other wrong token.
MAY_BE_EMPTY = frozenset({"cursor", "token"})

# Adds the calendar of a row to a query, so that Citus asks only the server of the calendar.
ON_CALENDAR = Change(
    "calendar",
    lambda rows, calendar: rows.filter(calendar=calendar),
    {"calendar": UUIDField()},
)

# The value of `Cache-Control` in a response that nobody may compress; see `bookit.web.compression`.
NO_TRANSFORM = "no-transform"

register_converter(AnyCaseUUIDConverter, "id")


# Methods that DRF's views call but `RowViewSet` does not, and what to do instead of an override.
UNUSED = {
    "get_queryset": (
        "Narrow a list in `listed`. `queryset` has all rows, and `has_object_permission` decides"
        " who may see one of them."
    ),
    "get_object": "Set `object_rows` and `object_lookup` to find the object that the path names.",
}


class APIMixin(APIView):
    """The parts of every view set that do not depend on its rows."""

    # The query parameters that can make a read costly, that is, much slower than other reads. If
    # this is empty, every read is costly. If it is None, no read is costly. `bookit.runtime.costly`
    # limits how many costly reads a web process runs at once.
    costly_with: Collection[str] | None = None
    # Whether replicas of the database may answer GET and HEAD. True only where anyone may read, at
    # least without the parameter `explain`.
    reads_replicas = False
    # The actions whose responses contain a secret, for example a token. They are never compressed.
    with_secrets: Collection[str] = ()
    # DRF reads this attribute. DRF's own `initial` sets it to the URL argument `format`, which no
    # URL of BookIt has.
    format_kwarg: str | None = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Handle a request, and drop the view's reference to the response.

        The view and DRF's request refer to each other. If the view kept its reference, the response
        and its body would stay in memory until the next garbage collection, which comes after
        hundreds of responses.
        """
        response = super().dispatch(request, *args, **kwargs)
        del self.response
        return response

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, throttle, check permissions, headers and parameters, and read the zone."""
        method = str(request.method).lower()
        if method not in self.http_method_names or not hasattr(self, method):
            # Refuse the method before authentication, because signing in would not help.
            self.http_method_not_allowed(request)
        if method == "options":
            # A browser's preflight request has no token and changes nothing, so there is no user to
            # look up. Its parameters belong to the request that follows and are not checked here.
            request.authenticators = ()
        else:
            self.perform_authentication(request)
        if method in ("get", "head") and not request.user.is_authenticated:
            deadlines.shorten(deadlines.ANON_LIMIT)
        # DRF throttles after it checks permissions. Throttle first, so that refused requests count.
        self.check_throttles(request)
        if method == "options":
            return
        query = request.META.get("QUERY_STRING")
        if query:
            self._count_parameters(request)
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(
            request
        )
        self.check_permissions(request)
        self.check_object()
        if "HTTP_IDEMPOTENCY_KEY" in request.META and not self.takes(IDEMPOTENCY_KEY, method):
            raise refuse(IDEMPOTENCY_KEY, _("This endpoint does not support this header."))
        if "HTTP_IF_MATCH" in request.META and not self.takes(IF_MATCH, method):
            raise refuse(IF_MATCH, _("This endpoint does not support this header."))
        if query:
            self._check_parameters(request)
        name = (query and request.query_params.get("tz")) or request.META.get("HTTP_TIME_ZONE")
        if name:
            try:
                request.zone = zone(name)  # type: ignore[attr-defined]
            except ValueError as error:
                field = "tz" if query and "tz" in request.query_params else "Time-Zone"
                raise refuse(field, str(error)) from None
        if replicas.ALIASES and self.reads_replicas and method in ("get", "head"):
            # Everything above was read and decided on the primary. Only the handler, which DRF
            # calls next, may read from a replica.
            setattr(self, method, partial(replicas.read, getattr(self, method), request.user))

    @property
    def needed_permission(self) -> str | None:
        """The Django permission that the request needs; None if no permission covers it."""
        return None

    def check_permissions(self, request: Request) -> None:
        """Check the permissions. If the request has an API key, the key must permit it as well.

        Endpoints that are open to anyone accept every key.
        """
        if not self.key_permits(self.needed_permission):
            is_public = all(isinstance(each, AllowAny) for each in self.get_permissions())
            if not is_public:
                self.permission_denied(request, message=_("The API key does not permit this."))
        super().check_permissions(request)

    def key_permits(self, permission: str | None) -> bool:
        """Return whether the request has no API key, or a key with the permission."""
        key = self.request.auth
        return not isinstance(key, UsedKey) or key.permits(permission)

    def takes(self, header: str, method: str) -> bool:
        """Return whether the action supports `header`, a header that must not be ignored."""
        action = getattr(self, getattr(self, "action", None) or method)
        return getattr(action, "takes", None) == header

    def perform_authentication(self, request: Request) -> None:
        """Authenticate the request, and store the user's id for the log line.

        The log line is written outside DRF.
        """
        super().perform_authentication(request)
        request._request.signed_in = request.user.pk  # type: ignore[attr-defined]

    def check_object(self) -> None:
        """Check whether the caller may access the object that the path names, if any.

        This comes before the body is read, because a refusal must not depend on the body or on the
        state of the object.
        """

    def _count_parameters(self, request: Request) -> None:
        try:
            request.query_params  # noqa: B018 - Django counts them on first access
        except TooManyFieldsSent:
            raise refuse("", _("The query string has too many parameters.")) from None

    def _check_parameters(self, request: Request) -> None:
        known = self.known_parameters()
        for name, values in request.query_params.lists():
            if name not in known:
                raise refuse(
                    name[:100].replace("\0", ""),
                    _("Unknown parameter. This endpoint accepts: %(known)s.")
                    % {"known": ", ".join(sorted(known))},
                    "unknown",
                )
            if any("\0" in value for value in values):
                raise refuse(name, _("Null characters are not allowed."))
            if name not in MAY_BE_EMPTY and not all(value.strip() for value in values):
                # A filter without a value would not filter, and the client might not notice.
                raise refuse(name, _("This parameter is empty. Leave it out, or give it a value."))
            if len(values) > 1 and not self.may_repeat(name):
                # Only one of the values would have an effect, and the client might not notice.
                raise refuse(name, _("This parameter can be sent only once."))

    def known_parameters(self) -> frozenset[str]:
        """Return the names of the query parameters that this request may carry."""
        return frozenset({"tz"})

    def may_repeat(self, name: str) -> bool:
        """Return whether a request may carry this query parameter several times."""
        return False

    def finalize_response(  # type: ignore[override]
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Add the headers, write the body, and respond to a conditional request."""
        for name, value in self.headers.items():
            response.headers[name] = value
        if not isinstance(response, Response) or response.is_written:
            return response
        if response.data is None:
            del response.headers["Content-Type"]
            return response
        context = {"request": request, "kwargs": self.kwargs}
        response.write_with(request.accepted_renderer, context)
        if self.with_secrets and getattr(self, "action", None) in self.with_secrets:
            response.headers["Cache-Control"] = NO_TRANSFORM
        return tagged(response, request) if response.status_code in (200, 201) else response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the allowed methods in the `Allow` header, without a body."""
        return Response(status=204)


class RowViewSet(APIMixin, viewsets.GenericViewSet[Any]):
    """The endpoints of a resource, which represent rows as plain dictionaries.

    `list` and `retrieve` fetch only the columns that are shown. A row stays a dictionary from the
    database to the client, without serializer fields. In a read, only a check of object permissions
    needs a model instance.
    """

    serializer_class: type[RowSerializer]
    # Per action: the serializer that checks the body or the query parameters.
    input_classes: Mapping[str, type[serializers.Serializer[Any]]] = {}
    # Per action: the permission that replaces `permission_classes`.
    action_permissions: Mapping[str, type[BasePermission]] = {}
    # The model whose Django permissions apply; by default the model of `queryset`.
    governed_by: type[Model] | None = None
    # Per action: the permission that the action needs, if it does not follow from the HTTP method.
    needed_permissions: Mapping[str, str] = {}
    # How to find the object that the path names, which `has_object_permission` receives.
    # `object_rows` are the rows to search, by default `queryset`. `object_lookup` maps each field
    # to the name of the path parameter that contains the value of the field.
    object_rows: QuerySet[Any] | None = None
    object_lookup: Mapping[str, str] = {"pk": "pk"}
    # The resources that the parameter `expand` can add to the rows of a read, by name.
    expandable: Mapping[str, Expansion] = {}
    # Per action: the field of the body that names another object, and a function that maps the
    # field's value to what the permission checks: an object or an id. A function that looks for the
    # object raises `ObjectDoesNotExist` if there is none.
    named_in_body: Mapping[str, tuple[str, Callable[[Any], Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse overrides of methods that DRF's views call but this class does not.

        Raises:
            TypeError: the class overrides `get_queryset` or `get_object`.
        """
        super().__init_subclass__(**options)
        for name, remedy in UNUSED.items():
            if name in vars(cls):
                raise TypeError(f"{cls.__name__}.{name} would not be called. {remedy}")

    @property
    def needed_permission(self) -> str | None:
        """The Django permission that the request needs, for example `bookings.view_booking`."""
        named = self.needed_permissions.get(self.action)
        if named is not None:
            return named
        if self.governed_by is not None:
            model = self.governed_by
        else:
            rows: Any = self.queryset  # type: ignore[arg-type]
            if rows is None:
                return None
            model = rows.model
        verb = VERBS.get(self.request.method or "")
        return f"{model._meta.app_label}.{verb}_{model._meta.model_name}"

    def get_permissions(self) -> list[Any]:
        """Return the permissions of this action."""
        permission = self.action_permissions.get(self.action)
        return [permission()] if permission else [*super().get_permissions()]

    def check_object(self) -> None:
        """Find the object that the path names, store it in `self.object`, and check permissions.

        For a read without object permissions, this does nothing. A change always reads the object,
        so that a path that names no object is a 404, whatever the body contains.

        Raises:
            ObjectDoesNotExist: the path names no object.
        """
        names = self.object_lookup.values()
        if not self.kwargs or not self.kwargs.keys() >= {*names}:
            return
        if self.request.method in SAFE_METHODS and not any(
            type(each).has_object_permission is not BasePermission.has_object_permission
            for each in self.get_permissions()
        ):
            return
        rows: Any = self.object_rows
        if rows is None:
            rows = self.queryset  # type: ignore[arg-type]
        wanted = {field: self.kwargs[name] for field, name in self.object_lookup.items()}
        if is_spread(rows.model):
            wanted["calendar"] = calendar_of(rows.model, wanted["pk"])
        self.object = rows.get(**wanted)
        self.check_object_permissions(self.request, self.object)

    def check_named(self) -> None:
        """Check whether the caller may act on the object that a field of the body names.

        Only this field is validated here. If it is invalid, the later validation of the whole body
        reports the error. If it names no object, the service does.
        """
        field, find = self.named_in_body.get(self.action, ("", None))
        body = self.request.data
        if find is None or not isinstance(body, Mapping) or field not in body:
            return
        serializer_class: Any = self.get_serializer_class()
        try:
            fields: Any = _checker(serializer_class).fields  # type: ignore[attr-defined]
            named = find(fields[field].run_validation(body[field]))
        except (serializers.ValidationError, ObjectDoesNotExist):
            return
        self.check_object_permissions(self.request, named)

    def current(self) -> Any:
        """Return the row that the path names. `If-Match` is compared with its version."""
        return self.object

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """Return the serializer that checks this action's input, by default the resource's."""
        return self.input_classes.get(self.action, self.serializer_class)

    def known_parameters(self) -> frozenset[str]:
        """Return the accepted parameters; a list also accepts filters, ordering and pagination."""
        names = super().known_parameters()
        if self.expandable and self.action in ("list", "retrieve"):
            names |= {EXPAND}
        if self.action != "list":
            return names
        names |= {"ordering"} if getattr(self, "ordering_fields", None) else set()
        filterset = getattr(self, "filterset_class", None)
        if filterset is not None:
            names |= set(filterset.base_filters)
        paginator: Any = self.paginator
        return names | (paginator.parameters(self) if paginator is not None else set())

    def may_repeat(self, name: str) -> bool:
        """Return whether a request may carry this query parameter several times."""
        filters = getattr(getattr(self, "filterset_class", None), "base_filters", {})
        several = AnyOfFilter | CommaSeparatedChoices
        return name == EXPAND or isinstance(filters.get(name), several)

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one page of the list."""
        rows = self.filter_queryset(self.listed().shaped(self.columns))  # type: ignore[arg-type]
        page: Any = self.paginate_queryset(rows)
        represent = self.represent
        shown: Any = self.get_paginated_response(self.expanded([represent(row) for row in page]))
        return shown

    def expanded(self, rows: Rows) -> Rows:
        """Return represented rows, with the resources that the parameter `expand` names."""
        if self.expandable and EXPAND in self.request.query_params:
            expand(self.request, rows, self.expandable)
        return rows

    def listed(self) -> Bound:
        """Return the rows that the caller may list, before any filter; by default all rows."""
        return _all_rows(type(self))()

    @property
    def columns(self) -> Callable[[QuerySet[Any]], QuerySet[Any, dict[str, Any]]]:
        """The function that selects the columns that the caller sees."""
        return self.serializer_class.rows

    def represent(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the representation of a row for the caller."""
        return self.serializer_class.represent(row)

    def represent_instance(self, instance: Any) -> dict[str, Any]:
        """Return the representation of an instance for a caller who may change it."""
        return self.serializer_class.represent_instance(instance)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the resource with this id."""
        return Response(self.expanded([self.row(kwargs["pk"])])[0])

    def row(self, pk: UUID) -> dict[str, Any]:
        """Return the representation of one row of the queryset.

        Raises:
            Http404: no row has this id.
        """
        query = _row_query(type(self), self.columns)(pk=pk)
        if is_spread(query.query.model):
            query = query.changed(ON_CALENDAR, calendar=calendar_of(query.query.model, pk))
        row = query.first()
        if row is None:
            raise Http404
        return self.represent(row)

    def checked(self, **options: Any) -> Any:
        """Return the request's body, validated by the action's serializer.

        Before that, check whether the caller may act on the object that the body names.

        Args:
            options: options of the serializer, for example `partial`.
        """
        self.check_named()
        serializer_class: Any = self.get_serializer_class()
        return _checker(serializer_class, **options).run_validation(self.request.data)

    @property
    def query_fields(self) -> frozenset[str]:
        """The names of the query parameters that `checked_query` validates."""
        serializer_class: Any = self.get_serializer_class()
        return frozenset(_checker(serializer_class).fields)  # type: ignore[attr-defined]

    def checked_query(self) -> Any:
        """Return the request's query parameters, validated by the action's serializer."""
        serializer_class: Any = self.get_serializer_class()
        return _checker(serializer_class).run_validation(self.request.query_params)

    def created(self, instance: Any) -> Response:
        """Return a 201 response with `instance`, and with its URL in `Location`."""
        path = f"{self.request.path}/{instance.pk}"
        return Response(
            self.represent_instance(instance),
            status=201,
            headers={"Location": self.request.build_absolute_uri(path)},
        )

    def shown(self, instance: Any) -> Response:
        """Return a response with the representation of `instance`."""
        return Response(self.represent_instance(instance))


@cache
def _checker(serializer_class: Any, **options: Any) -> serializers.BaseSerializer[Any]:
    """Return the serializer that validates a body or a query, shared by all requests.

    A serializer keeps no state between two validations, once `_translate_when_read` has changed it.
    DRF creates a new serializer, with copies of all its fields, for each request. Creating it takes
    several times as long as a validation.
    """
    shared: serializers.BaseSerializer[Any] = serializer_class(**options)
    _translate_when_read(shared)
    return shared


def _translate_when_read(field: Any) -> None:
    """Translate the messages of a field and of its parts whenever they are read.

    DRF's messages about limits are translated when they are first read, and keep that language.
    """
    for validator in field.validators:
        message = getattr(validator, "message", None)
        if isinstance(message, lazy_format) and message.format_string:
            validator.message = format_lazy(message.format_string, *message.args, **message.kwargs)
    child = getattr(field, "child", None)
    for part in [*getattr(field, "fields", {}).values(), *([child] if child else [])]:
        _translate_when_read(part)


@cache
def _all_rows(view: type[RowViewSet]) -> Prepared[Any]:
    """Return the prepared query for all rows of a view's resource."""
    queryset: QuerySet[Any] = view.queryset  # type: ignore[assignment]
    return Prepared(queryset.all)


@cache
def _row_query(view: type[RowViewSet], columns: Callable[..., Any]) -> Prepared[Any]:
    """Return the prepared query that finds one row of a view's resource."""
    queryset: QuerySet[Any] = view.queryset  # type: ignore[assignment]
    return Prepared(
        lambda pk: queryset.order_by().filter(pk=pk),
        columns,
        pk=queryset.model._meta.pk,
    )
