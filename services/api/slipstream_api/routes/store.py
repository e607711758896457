"""The store: items that outlive threads. A runner does the work; see ADR 18."""

import logging
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put

from slipstream_api import access
from slipstream_api.bodies import bounded, changed, flag, read
from slipstream_api.context import Context
from slipstream_api.problems import as_json
from slipstream_nats import rpc
from slipstream_schemas import store, subjects
from slipstream_schemas.errors import Forbidden, InvalidArgument, NoResponder, Unavailable
from slipstream_schemas.limits import (
    SEARCH_LIMIT_MAX,
    SEARCH_OFFSET_MAX,
    STORE_LABELS_MAX,
    STORE_NAMESPACES_LIMIT_MAX,
    STORE_REQUEST_DEADLINE_S,
    STORE_TTL_MINUTES_MAX,
    STORE_TTL_MINUTES_MIN,
)
from slipstream_schemas.metadata_filter import Equal, Every, MetadataFilter
from slipstream_schemas.store import StoreQuestion

log = logging.getLogger("slipstream.auth")

AnyRequest = Request[Any, Any, Any]


class ItemPut(msgspec.Struct):
    """Body of `PUT /store/items`."""

    namespace: list[str]
    key: str
    value: dict[str, Any]
    index: bool | list[str] | None = None
    ttl: float | msgspec.UnsetType | None = msgspec.UNSET


class ItemDelete(msgspec.Struct):
    """Body of `DELETE /store/items`."""

    namespace: list[str]
    key: str


class ItemSearch(msgspec.Struct):
    """Body of `POST /store/items/search`."""

    namespace_prefix: list[str] | None = None
    filter: dict[str, Any] | None = None
    limit: int = 10
    offset: int = 0
    query: str | None = None
    refresh_ttl: bool | None = None


class NamespaceList(msgspec.Struct):
    """Body of `POST /store/namespaces`."""

    prefix: list[str] | None = None
    suffix: list[str] | None = None
    max_depth: int | None = None
    limit: int = 100
    offset: int = 0


async def _permit(
    context: Context, action: str, value: dict[str, Any], loc: str = "namespace"
) -> tuple[list[str], MetadataFilter | None]:
    """The namespace that the caller's handlers leave, and their filter. Raises: Forbidden, InvalidArgument."""
    value["namespace"] = tuple(value["namespace"])
    found = await access.permit(context, "store", action, value)
    if found is not None and action != "search":
        log.error("on.store.%s returned a filter, and items have no metadata: change value['namespace']", action)
        raise Forbidden("Forbidden")
    labels = [str(label) for label in value.get("namespace") or ()]
    store.check_labels(labels, ("body", loc))
    return labels, found


def _narrowed(wanted: dict[str, Any] | None, found: MetadataFilter | None) -> dict[str, Any] | None:
    """A search's filter and the handler's. Raises: Forbidden for one that the store cannot add."""
    if found is None:
        return wanted
    out = dict(wanted or {})
    for part in found.parts if isinstance(found, Every) else (found,):
        if not isinstance(part, Equal) or (part.key in out and out[part.key] != part.value):
            log.error("on.store.search returned a filter that is not of plain values, or not compatible")
            raise Forbidden("Forbidden")
        out[part.key] = {"$eq": part.value}
    return out


async def ask(context: Context, question: StoreQuestion) -> msgspec.Raw:
    """A runner's answer. Raises: Rejected, TooLarge, Unavailable."""
    subject, body = subjects.store_rpc(context.settings.region), msgspec.json.encode(question)
    try:
        return msgspec.Raw(await rpc.call(context.connection, subject, body, STORE_REQUEST_DEADLINE_S))
    except NoResponder as error:
        raise Unavailable("no runner is up, and runners serve the store") from error


@put("/store/items", status_code=204)
async def put_item(request: AnyRequest) -> None:
    """Store an item, in place of an older one."""
    context: Context = request.state.context
    body = await read(request, ItemPut)
    store.check_namespace(body.namespace, ("body", "namespace"))
    store.check_key(body.key, ("body", "key"))
    store.check_value(body.value)
    store.check_index(body.index, ("body", "index"))
    if isinstance(body.ttl, float) and not STORE_TTL_MINUTES_MIN <= body.ttl <= STORE_TTL_MINUTES_MAX:
        text = f"Expected minutes from {STORE_TTL_MINUTES_MIN} to {STORE_TTL_MINUTES_MAX}"
        raise InvalidArgument(text, ("body", "ttl"), "out_of_range")
    asked = {"namespace": body.namespace, "key": body.key, "value": body.value, "index": body.index}
    labels, _ = await _permit(context, "put", asked)
    store.check_namespace(labels, ("body", "namespace"))
    value = changed(body, {"value": asked["value"]}).value
    store.check_value(value)
    tenant = context.scope.tenant
    await ask(context, store.PutItem(tenant, labels, body.key, value, body.index, body.ttl))


@get("/store/items")
async def get_item(request: AnyRequest) -> Response[bytes]:
    """One item; null when there is none."""
    context: Context = request.state.context
    key, dotted = request.query_params.get("key"), request.query_params.get("namespace")
    if key is None:
        raise InvalidArgument("Field required", ("query", "key"), "missing")
    store.check_key(key, ("query", "key"))
    labels = dotted.split(".") if dotted else []
    store.check_namespace(labels, ("query", "namespace"))
    refresh = flag(request, "refresh_ttl") if "refresh_ttl" in request.query_params else None
    labels, _ = await _permit(context, "get", {"namespace": labels, "key": key})
    store.check_namespace(labels, ("query", "namespace"))
    return as_json(await ask(context, store.GetItem(context.scope.tenant, labels, key, refresh)))


@delete("/store/items", status_code=204)
async def delete_item(request: AnyRequest) -> None:
    """Forget an item, or nothing when there is none."""
    context: Context = request.state.context
    body = await read(request, ItemDelete)
    store.check_namespace(body.namespace, ("body", "namespace"))
    store.check_key(body.key, ("body", "key"))
    labels, _ = await _permit(context, "delete", {"namespace": body.namespace, "key": body.key})
    store.check_namespace(labels, ("body", "namespace"))
    await ask(context, store.DeleteItem(context.scope.tenant, labels, body.key))


@post("/store/items/search", status_code=200)
async def search_items(request: AnyRequest) -> Response[bytes]:
    """Items below a namespace that match: the closest to `query` first, or the last changed first."""
    context: Context = request.state.context
    body = await read(request, ItemSearch)
    prefix = body.namespace_prefix or []
    store.check_labels(prefix, ("body", "namespace_prefix"))
    store.check_filter(body.filter, ("body", "filter"))
    limit = bounded(body.limit, 1, SEARCH_LIMIT_MAX, ("body", "limit"))
    offset = bounded(body.offset, 0, SEARCH_OFFSET_MAX, ("body", "offset"))
    asked = {"namespace": prefix, "filter": body.filter, "limit": limit, "offset": offset, "query": body.query}
    prefix, found = await _permit(context, "search", asked, "namespace_prefix")
    wanted: Any = asked["filter"]
    narrowed = _narrowed(wanted, found)
    store.check_filter(narrowed, ("body", "filter"))
    tenant = context.scope.tenant
    question = store.SearchItems(tenant, prefix, narrowed, limit, offset, body.query, body.refresh_ttl)
    return as_json(await ask(context, question))


@post("/store/namespaces", status_code=200)
async def list_namespaces(request: AnyRequest) -> Response[bytes]:
    """Namespaces that hold items."""
    context: Context = request.state.context
    body = await read(request, NamespaceList)
    prefix, suffix, depth = body.prefix or [], body.suffix or [], body.max_depth
    store.check_labels(prefix, ("body", "prefix"))
    store.check_labels(suffix, ("body", "suffix"))
    if depth is not None:
        bounded(depth, 1, STORE_LABELS_MAX, ("body", "max_depth"))
    limit = bounded(body.limit, 1, STORE_NAMESPACES_LIMIT_MAX, ("body", "limit"))
    offset = bounded(body.offset, 0, SEARCH_OFFSET_MAX, ("body", "offset"))
    asked = {"namespace": prefix, "suffix": suffix, "max_depth": depth, "limit": limit, "offset": offset}
    prefix, _ = await _permit(context, "list_namespaces", asked, "prefix")
    question = store.ListNamespaces(context.scope.tenant, prefix, suffix, depth, limit, offset)
    return as_json(await ask(context, question))


ROUTES = [put_item, get_item, delete_item, search_items, list_namespaces]
