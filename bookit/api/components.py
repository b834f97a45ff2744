"""The order of the OpenAPI document, and the parts that its operations share.

`share` moves each repeated part to the components of the document, and replaces the part with a
reference. Otherwise, each operation would contain all of its errors, headers and common parameters,
and the document would be four times as large.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, count
from json import loads
from typing import Any

from drf_spectacular.generators import SchemaGenerator

from bookit.json import dumps

METHODS = ["get", "post", "patch", "delete"]
# A reference takes about this many bytes. Parts that are not longer stay where they are.
REFERENCE_LENGTH = 60
# A schema becomes the base of other schemas only if it has at least this many properties. Two
# schemas with fewer properties can be alike by chance.
MIN_BASE_PROPERTIES = 3

# A place in the document: an object or a list, and the key or the index of the part in it.
Place = tuple[Any, Any]


def sorting_key(endpoint: tuple[str, str, str, Any]) -> tuple[list[str], int]:
    """Return the key by which drf-spectacular sorts an endpoint.

    The segments of the path come first, so a collection comes before its items. The order of the
    methods must be fixed here, because DRF keeps the methods of a view in a set, whose order
    differs from process to process.
    """
    path, _, method, _ = endpoint
    return _segments(path), METHODS.index(method.lower())


def in_order(paths: dict[str, Any]) -> dict[str, Any]:
    """Return the paths of a document in the order of `sorting_key`."""
    return {path: paths[path] for path in sorted(paths, key=_segments)}


def _segments(path: str) -> list[str]:
    """Return the segments of a path, without the names of its parameters."""
    return re.sub("{.*?}", "{}", path).strip("/").split("/")


class Generator(SchemaGenerator):
    """Generates the OpenAPI document."""

    def get_schema(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the document, in which parts that operations share are written once.

        Each path with several methods has the parameters that all of them take, and the document
        has the authentication that most operations take. A hook cannot move the parameters: after
        the hooks have run, drf-spectacular looks for an operation id in every value of a path.
        """
        document: dict[str, Any] = super().get_schema(*args, **kwargs)
        _share_security(document)
        for path, methods in document["paths"].items():
            document["paths"][path] = _with_common_parameters(methods)
        return document


def _share_security(document: dict[str, Any]) -> None:
    """Move the most frequent authentication of operations to the document, as its default."""
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    [(common, _times)] = Counter(dumps(each["security"]) for each in operations).most_common(1)
    document["security"] = loads(common)
    for operation in operations:
        if operation["security"] == document["security"]:
            del operation["security"]


def _with_common_parameters(methods: dict[str, Any]) -> dict[str, Any]:
    """Return the path item, after moving to it the parameters that all of its methods take.

    If there is only one method, its parameters stay where they are.
    """
    [first, *others] = [operation.get("parameters", []) for operation in methods.values()]
    common = [each for each in first if others and all(each in other for other in others)]
    if not common:
        return methods
    for operation in methods.values():
        rest = [each for each in operation.pop("parameters") if each not in common]
        if rest:
            operation["parameters"] = rest
    return {"parameters": common, **methods}


def share(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Move repeated parts of the document to its components, and refer to them."""
    schemas = result["components"]["schemas"]
    _share_pages(schemas)
    _share_bases(schemas)
    _share(result, "schemas", [*_objects(schemas)], lambda place: [_name_of_object(place, schemas)])
    operations = [
        operation
        for methods in (*result["paths"].values(), *result["webhooks"].values())
        for operation in methods.values()
    ]
    _move_examples(schemas, operations)
    _share(result, "headers", [*_headers(operations)], _names_of_header)
    _share(result, "parameters", [*_parameters(operations)], lambda place: [_part(place)["name"]])
    _share(result, "responses", [*_responses(operations)], _names_of_response)
    return result


def _share(
    result: dict[str, Any], kind: str, places: list[Place], names_of: Callable[[Place], list[str]]
) -> None:
    """Replace each part that occurs in several places with a reference to a component.

    `names_of` returns the names that a part may get, the best name first. If several parts may get
    the same name, the most frequent part gets it.
    """
    written = [dumps(_part(place)) for place in places]
    components: dict[str, Any] = result["components"].get(kind, {})
    names: dict[bytes, str] = {}
    first = dict(zip(reversed(written), reversed(places), strict=True))
    for text, times in Counter(written).most_common():
        if times > 1 and len(text) > REFERENCE_LENGTH:
            names[text] = _unused(names_of(first[text]), components)
            components[names[text]] = _part(first[text])
    for (holder, key), text in zip(places, written, strict=True):
        if text in names:
            holder[key] = {"$ref": f"#/components/{kind}/{names[text]}"}
    if components:
        result["components"][kind] = dict(sorted(components.items()))


def _part(place: Place) -> Any:
    holder, key = place
    return holder[key]


def _unused(names: list[str], components: dict[str, Any]) -> str:
    """Return the first name that no component has yet, or else the last name with a number."""
    numbered = (f"{names[-1]}_{number}" for number in count(2))
    allowed = (re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) for name in chain(names, numbered))
    return next(name for name in allowed if name not in components)


def _objects(schemas: dict[str, Any]) -> Iterator[Place]:
    """Yield the places of properties whose values are objects with any keys, such as metadata."""
    for schema in schemas.values():
        for name, each in schema.get("properties", {}).items():
            if isinstance(each.get("additionalProperties"), dict):
                yield schema["properties"], name


def _name_of_object(place: Place, schemas: dict[str, Any]) -> str:
    """Return the component name of an object: `Metadata`; in a request, `MetadataRequest`."""
    properties, name = place
    is_closed = any(
        schema.get("properties") is properties and "additionalProperties" in schema
        for schema in schemas.values()
    )
    return f"{name.title()}Request" if is_closed else name.title()


def _parameters(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for index in range(len(operation.get("parameters", []))):
            yield operation["parameters"], index


def _headers(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for response in operation["responses"].values():
            for name in response.get("headers", {}):
                yield response["headers"], name


def _names_of_header(place: Place) -> list[str]:
    """Return the names that a header may get, the short one first: `Policy`, `RateLimit-Policy`."""
    _, name = place
    return [name.rpartition("-")[2], name]


def _move_examples(schemas: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    """Move the examples of requests and responses to their schemas, which many operations share.

    A page of a list needs no example of its own. Its rows become examples of the schema of a row.
    """
    for operation in operations:
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in body.get("content", {}).values():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                if not name:
                    continue
                values = [each["value"] for each in content.pop("examples", {}).values()]
                if name.startswith("Paginated"):
                    name = _schema_of_rows(schemas[name])
                    values = [row for page in values for row in page["results"]]
                known = schemas[name].get("examples", [])
                if new := [value for value in values if value not in known]:
                    schemas[name]["examples"] = [*known, *new]


def _schema_of_rows(page: dict[str, Any]) -> str:
    """Return the name of the schema of the rows of a page."""
    [*_, own] = page.get("allOf", [page])
    reference: str = own["properties"]["results"]["items"]["$ref"]
    return reference.rpartition("/")[2]


def _responses(operations: list[dict[str, Any]]) -> Iterator[Place]:
    for operation in operations:
        for status in operation["responses"]:
            yield operation["responses"], status


def _names_of_response(place: Place) -> list[str]:
    """Return the names that a response may get.

    The name of an error is its status, or its status with its first error code. Other responses are
    named by their status and their schema. The names are short, because an operation refers to
    about ten responses.
    """
    _, status = place
    if status >= "400":
        codes = re.findall("`(.+?)`", _part(place)["description"])
        return [status, *(f"{status}_{code}" for code in codes[:1])]
    for content in _part(place).get("content", {}).values():
        schema = content["schema"].get("$ref", "").rpartition("/")[2]
        return [f"{status}_{schema}" if schema else status]
    return [status]


def _share_pages(schemas: dict[str, Any]) -> None:
    """Add `Page`, a schema with the properties that the pages of different lists share.

    Afterwards, `_share_bases` lets the pages extend it.
    """
    alike = defaultdict(list)
    for name, schema in schemas.items():
        if name.startswith("Paginated"):
            common = {**schema["properties"]}
            del common["results"]
            alike[dumps(common)].append(name)
    for names in alike.values():
        if len(names) == 1:
            continue
        page = schemas[names[0]]
        schemas[_unused(["Page"], schemas)] = {
            **page,
            "properties": {
                name: each for name, each in page["properties"].items() if name != "results"
            },
            "required": [name for name in page["required"] if name != "results"],
        }
    _sort(schemas)


def _share_bases(schemas: dict[str, Any]) -> None:
    """Let each schema that has all properties of another schema extend that schema, by `allOf`.

    Schemas of requests stay as they are, because their `additionalProperties` allows no extension.
    """
    open_schemas = {
        name: schema
        for name, schema in schemas.items()
        if "properties" in schema and "additionalProperties" not in schema
    }
    bases = {
        name: max(
            (base for base in open_schemas if _extends(schema, open_schemas[base])),
            key=lambda base: len(open_schemas[base]["properties"]),
            default=None,
        )
        for name, schema in open_schemas.items()
    }
    for name, base in bases.items():
        if base is None:
            continue
        schema, inherited = open_schemas[name], open_schemas[base]
        own: dict[str, Any] = {
            "type": "object",
            "properties": {
                key: each
                for key, each in schema["properties"].items()
                if key not in inherited["properties"]
            },
        }
        already = inherited.get("required", [])
        if required := [key for key in schema.get("required", []) if key not in already]:
            own["required"] = required
        rest = {key: each for key, each in schema.items() if key not in ("properties", "required")}
        schemas[name] = {**rest, "allOf": [{"$ref": f"#/components/schemas/{base}"}, own]}


def _extends(schema: dict[str, Any], base: dict[str, Any]) -> bool:
    """Return whether `schema` has all properties of `base`, and further properties.

    It must also require every property that `base` requires.
    """
    return (
        MIN_BASE_PROPERTIES <= len(base["properties"]) < len(schema["properties"])
        and all(schema["properties"].get(name) == each for name, each in base["properties"].items())
        and {*base.get("required", [])} <= {*schema.get("required", [])}
    )


def _sort(schemas: dict[str, Any]) -> None:
    """Sort the schemas by name, in place."""
    for name in sorted(schemas):
        schemas[name] = schemas.pop(name)
