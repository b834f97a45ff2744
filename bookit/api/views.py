"""What every endpoint shares: the zone of its answers, strict parameters, rate limits."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any
from uuid import UUID

from django.core.exceptions import TooManyFieldsSent
from django.db.models import QuerySet
from django.http import Http404, HttpRequest
from django.urls.converters import UUIDConverter, register_converter
from rest_framework import serializers, viewsets
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bookit import deadlines
from bookit.api.serializers import RowSerializer
from bookit.database.prepared import Bound, Prepared
from bookit.errors.refusals import refuse
from bookit.times import zone


class AnyCaseUUIDConverter(UUIDConverter):
    """A UUID in a path, in either case; anything else is a 404."""

    regex = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"


# Parameters that choose a page, or how it looks, and leave the query as it is.
PAGING = frozenset({"limit", "offset", "page", "tz"})

register_converter(AnyCaseUUIDConverter, "id")


def _break_reference_cycle(response: Response) -> None:
    """Break the cycles of a rendered response with itself, its view and its request.

    DRF makes them (`APIView.dispatch` sets `view.response`). Without this, the response and its
    body stay in memory until the next garbage collection, which comes after hundreds of responses.
    """
    context = response.renderer_context  # type: ignore[attr-defined]
    del context["view"].response
    context.clear()


# What DRF calls and a `RowViewSet` does not, and what to do instead.
UNUSED = {
    "get_queryset": (
        "Narrow a list in `listed`. `queryset` has all rows, and `has_object_permission` decides"
        " who may see one of them."
    ),
    "get_object": "Find what the path names by `object_rows` and `object_lookup`.",
}


class APIMixin(APIView):
    """The base of every view."""

    # With which parameters a read may cost much more than others; empty: always; None: never. Of
    # those reads a web process answers only some at a time (`bookit.runtime.costly`).
    costly_with: Collection[str] | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, throttle, then read what every request may say about its answer."""
        method = str(request.method).lower()
        if method not in self.http_method_names or not hasattr(self, method):
            # Before anybody is asked who they are: signing in would not help.
            self.http_method_not_allowed(request)
        if method == "options":
            # A browser's preflight carries no token, and what it asks about is not done: nobody is
            # looked up, and the parameters belong to another method.
            request.authenticators = ()
        else:
            self.perform_authentication(request)
        if method in ("get", "head") and not request.user.is_authenticated:
            deadlines.shorten(deadlines.ANON_LIMIT)
        # Before DRF would do it, after the permissions: what is refused counts, too.
        self.check_throttles(request)
        if method == "options":
            return
        query = request.META.get("QUERY_STRING")
        if query:
            self._count_parameters(request)
        super().initial(request, *args, **kwargs)
        self.check_object()
        if query:
            self._check_parameters(request)
        name = (query and request.query_params.get("tz")) or request.META.get("HTTP_TIME_ZONE")
        if name:
            try:
                request.zone = zone(name)  # type: ignore[attr-defined]
            except ValueError as error:
                field = "tz" if query and "tz" in request.query_params else "Time-Zone"
                raise refuse(field, str(error)) from None

    def perform_authentication(self, request: Request) -> None:
        """Find out who asks, also for the log line, which is written outside of DRF."""
        super().perform_authentication(request)
        request._request.signed_in = request.user.pk  # type: ignore[attr-defined]

    def check_throttles(self, request: Request) -> None:
        """Count the request, once."""
        if not hasattr(request._request, "rate_limit"):
            super().check_throttles(request)

    def check_object(self) -> None:
        """Decide whether the caller may touch what the path names, if it names something.

        This happens before anything else of the request is looked at: the answer to somebody who
        may not must depend neither on the body nor on the state of the object.
        """

    def _count_parameters(self, request: Request) -> None:
        try:
            request.query_params  # noqa: B018 - the first look at them counts them
        except TooManyFieldsSent:
            raise refuse("", "The query string has too many parameters.") from None

    def _check_parameters(self, request: Request) -> None:
        known = self.known_parameters()
        for name, values in request.query_params.lists():
            if name not in known:
                raise refuse(
                    name[:100].replace("\0", ""),
                    "Unknown parameter. This endpoint accepts: " + ", ".join(sorted(known)) + ".",
                    "unknown",
                )
            if any("\0" in value for value in values):
                raise refuse(name, "Null characters are not allowed.")

    def known_parameters(self) -> frozenset[str]:
        """Return the names of the query parameters that this request may carry."""
        return frozenset({"tz"})

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        """Have the response freed as soon as it is written."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.add_post_render_callback(_break_reference_cycle)
        return response

    def options(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Response:
        """Answer with the methods alone, in `Allow`."""
        return Response(status=204)


class RowViewSet(APIMixin, viewsets.GenericViewSet[Any]):
    """A resource: rows in, plain dictionaries out.

    Reading fetches the columns that are shown and nothing else: a row is a dictionary from the
    database to the client, no model instance and no serializer field is made for it.
    """

    serializer_class: type[RowSerializer]
    # Per action: the serializer that checks the body.
    input_classes: Mapping[str, type[serializers.Serializer[Any]]] = {}
    # Per action: who may do it, where that is not what `permission_classes` say.
    action_permissions: Mapping[str, type[BasePermission]] = {}
    # What the path names, as `has_object_permission` wants it: the rows (by default `queryset`),
    # and by which parts of the path one is found.
    object_rows: QuerySet[Any] | None = None
    object_lookup: Mapping[str, str] = {"pk": "pk"}
    # Per action: the field of the body that names what the action is about, and how to find that.
    named_in_body: Mapping[str, tuple[str, Callable[[Any], Any]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse what DRF would use and this class would not.

        Raises:
            TypeError: the class overrides `get_queryset` or `get_object`.
        """
        super().__init_subclass__(**options)
        for name, remedy in UNUSED.items():
            if name in vars(cls):
                raise TypeError(f"{cls.__name__}.{name} would not be called. {remedy}")

    def get_permissions(self) -> list[Any]:
        """Return who may do this action."""
        permission = self.action_permissions.get(self.action)
        return [permission()] if permission else [*super().get_permissions()]

    def check_object(self) -> None:
        """Find what the path names as `self.object`, and decide whether the caller may touch it.

        Reading what anybody may read needs no look at it. A change needs one in any case, so that
        what does not exist is a 404 whatever the body says.

        Raises:
            ObjectDoesNotExist: there is no such thing.
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
        self.object = rows.get(
            **{field: self.kwargs[name] for field, name in self.object_lookup.items()}
        )
        self.check_object_permissions(self.request, self.object)

    def check_named(self) -> None:
        """Decide whether the caller may do this to what a field of the body names.

        Only the shape of that field is checked before; everything else about the body comes later.
        A field of another shape, or one that names nothing, is refused with the rest.
        """
        field, find = self.named_in_body.get(self.action, ("", None))
        body = self.request.data
        if find is None or not isinstance(body, Mapping) or field not in body:
            return
        serializer: Any = self.get_serializer_class()
        try:
            fields: Any = _checker(serializer).fields  # type: ignore[attr-defined]
            named = find(fields[field].run_validation(body[field]))
        except serializers.ValidationError:
            return
        if named is not None:
            self.check_object_permissions(self.request, named)

    def get_serializer_class(self) -> type[serializers.BaseSerializer[Any]]:
        """Return the class that checks this action's body, or that shows the resource."""
        return self.input_classes.get(self.action, self.serializer_class)

    def known_parameters(self) -> frozenset[str]:
        """Return also the filters, and the parameters of pages, of a list."""
        names = super().known_parameters()
        if self.action != "list":
            return names
        names |= {"ordering"} if getattr(self, "ordering_fields", None) else set()
        filterset = getattr(self, "filterset_class", None)
        if filterset is not None:
            names |= set(filterset.base_filters)
        paginator: Any = self.paginator
        return names | (paginator.parameters(self) if paginator is not None else set())

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one page of the rows that match the filters, in order."""
        rows = self.paginate_queryset(self._rows_of_list(request))
        represent = self.serializer_class.represent
        return self.get_paginated_response([represent(row) for row in rows or []])

    def listed(self) -> QuerySet[Any] | Bound:
        """Return the rows that the caller may list, before any filter; by default all.

        A prepared query is run as it is if the request asks only for a page of it.
        """
        return self.get_queryset()

    def _rows_of_list(self, request: Request) -> Any:
        rows = self.listed()
        if isinstance(rows, Bound):
            if PAGING.issuperset(request.query_params):
                return rows
            rows = rows.queryset()
        return self.shaped(self.filter_queryset(rows))

    def shaped(self, rows: Any) -> Any:
        """Return the rows of a list with the columns that are shown."""
        return self.serializer_class.rows(rows)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the resource with this id."""
        return Response(self.row(kwargs["pk"]))

    def row(self, pk: UUID) -> dict[str, Any]:
        """Return the representation of one row of the queryset.

        Raises:
            NotFound: it has none of that id.
        """
        row = _one(type(self))(pk=pk).first()
        if row is None:
            raise Http404
        return self.serializer_class.represent(row)

    def checked(self, **options: Any) -> Any:
        """Return the request's body, checked for shape and format by the action's serializer.

        Before that, whether the caller may touch what the body names.
        """
        self.check_named()
        serializer: Any = self.get_serializer_class()
        return _checker(serializer, **options).run_validation(self.request.data)

    def asked(self) -> Any:
        """Return the request's parameters, checked as `checked` does its body."""
        serializer: Any = self.get_serializer_class()
        return _checker(serializer).run_validation(self.request.query_params)

    def created(self, instance: Any) -> Response:
        """Answer that `instance` was made, and where it is."""
        path = f"{self.request.path}/{instance.pk}"
        return Response(
            self.serializer_class.represent_instance(instance),
            status=201,
            headers={"Location": self.request.build_absolute_uri(path)},
        )

    def shown(self, instance: Any) -> Response:
        """Answer with `instance` as it is now."""
        return Response(self.serializer_class.represent_instance(instance))


@cache
def _checker(serializer: Any, **options: Any) -> serializers.BaseSerializer[Any]:
    """Return the serializer of a body, which keeps nothing of one check that the next could see.

    DRF makes a new one, with copies of all its fields, for each request; half of a check's time.
    """
    return serializer(**options)


@cache
def _one(view: type[RowViewSet]) -> Prepared[Any]:
    """Return the query of one row of a view's resource."""
    queryset: QuerySet[Any] = view.queryset  # type: ignore[assignment]
    return Prepared(
        lambda pk: queryset.order_by().filter(pk=pk),
        view.serializer_class.rows,
        pk=queryset.model._meta.pk,
    )
