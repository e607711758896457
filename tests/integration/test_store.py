"""The store at its edges: bad requests, tenants, a database without pgvector, an embed function that fails."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import InvalidNamespaceError
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from slipstream_runner.checkpoints import Pool, open_pool
from slipstream_runner.store import open_stores
from slipstream_runner.store_settings import Semantic, StoreSettings, load_store_settings
from slipstream_runner.tenant_store import TenantStore, set_up_store, sweep_expired
from slipstream_schemas.errors import InvalidArgument, Rejected, TooLarge, Unavailable
from slipstream_schemas.limits import (
    BODY_BYTES_MAX,
    SEARCH_LIMIT_MAX,
    STORE_DIMENSIONS_MAX,
    STORE_FIELD_BYTES_MAX,
    STORE_FIELDS_MAX,
    STORE_FILTER_KEYS_MAX,
    STORE_KEY_BYTES_MAX,
    STORE_LABEL_BYTES_MAX,
    STORE_LABELS_MAX,
    STORE_NAMESPACES_LIMIT_MAX,
    STORE_SWEEP_ROWS,
    STORE_TTL_MINUTES_MAX,
    STORE_TTL_MINUTES_MIN,
    STORE_VALUE_BYTES_MAX,
)
from slipstream_schemas.user_code import BadConfig
from testkit.stack import Stack

ITEMS, SEARCH, NAMESPACES = "/store/items", "/store/items/search", "/store/namespaces"
LONGEST = ["l" * STORE_LABEL_BYTES_MAX] * 3
Case = tuple[str, str, Any, int]


def item(**changes: Any) -> dict[str, Any]:
    """The body of a put."""
    return {"namespace": ["edges"], "key": "k", "value": {}, **changes}


def of_bytes(size: int) -> dict[str, str]:
    """A value that takes that many bytes as JSON."""
    return {"v": "x" * (size - len('{"v":""}'))}


ACCEPTED: list[Case] = [
    ("PUT", ITEMS, item(value=of_bytes(STORE_VALUE_BYTES_MAX)), 204),
    ("PUT", ITEMS, item(key="k" * STORE_KEY_BYTES_MAX, namespace=LONGEST), 204),
    ("PUT", ITEMS, item(namespace=["l"] * STORE_LABELS_MAX), 204),
    ("PUT", ITEMS, item(value={"big": 2**80, "small": -1e-300, "nul": "a\x00b"}), 204),
    ("PUT", ITEMS, item(ttl=STORE_TTL_MINUTES_MIN), 204),
    ("PUT", ITEMS, item(ttl=STORE_TTL_MINUTES_MAX), 204),
    ("PUT", ITEMS, item(ttl=None), 204),
    ("PUT", ITEMS, item(index=False), 204),
    ("PUT", ITEMS, item(index=["a[", "{b", "c..d", "[*]", "$", "x[y]"]), 204),
    ("PUT", ITEMS, item(namespace=["quo'te", "%_\\", "$1 \n", "*"], key="'; --"), 204),
    ("GET", f"{ITEMS}?namespace=edges&key=none", None, 200),
    ("GET", f"{ITEMS}?namespace=edges&key=none&refresh_ttl=false", None, 200),
    ("POST", SEARCH, {}, 200),
    ("POST", SEARCH, {"namespace_prefix": ["quo'te", "%_\\", "$1 \n"], "query": "x"}, 200),
    ("POST", SEARCH, {"filter": {"a'": 2**80, "%s": {"$gt": 2**80, "$lt": 1e300}}, "limit": SEARCH_LIMIT_MAX}, 200),
    ("POST", SEARCH, {"offset": 2**31 - 1, "query": "x"}, 200),
    ("POST", SEARCH, {"filter": {"a\x00": {"$gte": "\x00"}, "b": "\x00"}, "query": "\x00"}, 200),
    ("POST", NAMESPACES, {}, 200),
    ("POST", NAMESPACES, {"prefix": ["*", "(", "a+\n"], "suffix": ["\\"], "max_depth": STORE_LABELS_MAX}, 200),
    ("DELETE", ITEMS, {"namespace": ["edges"], "key": "none"}, 204),
]
REFUSED: list[Case] = [
    # Values, and bodies that are none
    ("PUT", ITEMS, item(value=of_bytes(STORE_VALUE_BYTES_MAX + 1)), 413),
    ("PUT", ITEMS, item(value=of_bytes(BODY_BYTES_MAX)), 413),
    ("PUT", ITEMS, item(value=None), 422),
    ("PUT", ITEMS, item(value=[]), 422),
    ("PUT", ITEMS, {"namespace": ["edges"], "key": "k"}, 422),
    ("PUT", ITEMS, b"[]", 422),
    ("PUT", ITEMS, b"{", 422),
    ("PUT", ITEMS, b'{"namespace":["a"],"key":"k","value":{"a":"\\ud800"}}', 422),
    # Namespaces
    ("PUT", ITEMS, item(namespace=[]), 422),
    ("PUT", ITEMS, item(namespace="edges"), 422),
    ("PUT", ITEMS, item(namespace=["a", ""]), 422),
    ("PUT", ITEMS, item(namespace=["a.b"]), 422),
    ("PUT", ITEMS, item(namespace=[1]), 422),
    ("PUT", ITEMS, item(namespace=["langgraph", "x"]), 422),
    ("PUT", ITEMS, item(namespace=["l" * (STORE_LABEL_BYTES_MAX + 1)]), 422),
    ("PUT", ITEMS, item(namespace=["é" * (STORE_LABEL_BYTES_MAX // 2 + 1)]), 422),
    ("PUT", ITEMS, item(namespace=["l"] * (STORE_LABELS_MAX + 1)), 422),
    ("PUT", ITEMS, item(namespace=[*LONGEST, LONGEST[0]]), 422),
    ("GET", f"{ITEMS}?key=k", None, 422),
    ("GET", f"{ITEMS}?namespace=a..b&key=k", None, 422),
    ("GET", f"{ITEMS}?namespace=a%00&key=k", None, 422),
    ("POST", SEARCH, {"namespace_prefix": ["a.b"]}, 422),
    ("POST", NAMESPACES, {"prefix": [""]}, 422),
    ("POST", NAMESPACES, {"suffix": ["l"] * (STORE_LABELS_MAX + 1)}, 422),
    # Keys
    ("PUT", ITEMS, item(key=""), 422),
    ("PUT", ITEMS, item(key=7), 422),
    ("PUT", ITEMS, item(key="k" * (STORE_KEY_BYTES_MAX + 1)), 422),
    ("GET", f"{ITEMS}?namespace=edges", None, 422),
    ("GET", f"{ITEMS}?namespace=edges&key=%00", None, 422),
    ("DELETE", ITEMS, {"namespace": ["edges"]}, 422),
    # Times to live, in minutes
    ("PUT", ITEMS, item(ttl=0), 422),
    ("PUT", ITEMS, item(ttl=-1), 422),
    ("PUT", ITEMS, item(ttl=STORE_TTL_MINUTES_MIN / 2), 422),
    ("PUT", ITEMS, item(ttl=STORE_TTL_MINUTES_MAX + 1), 422),
    ("PUT", ITEMS, item(ttl="1"), 422),
    # What is indexed
    ("PUT", ITEMS, item(index=True), 422),
    ("PUT", ITEMS, item(index="text"), 422),
    ("PUT", ITEMS, item(index=[""]), 422),
    ("PUT", ITEMS, item(index=["f"] * (STORE_FIELDS_MAX + 1)), 422),
    ("PUT", ITEMS, item(index=["f" * (STORE_FIELD_BYTES_MAX + 1)]), 422),
    # Searches
    ("POST", SEARCH, {"limit": 0}, 422),
    ("POST", SEARCH, {"limit": SEARCH_LIMIT_MAX + 1}, 422),
    ("POST", SEARCH, {"offset": -1}, 422),
    ("POST", SEARCH, {"filter": []}, 422),
    ("POST", SEARCH, {"filter": {"a": {"$like": "x"}}}, 422),
    ("POST", SEARCH, {"filter": {"a": {"b": 1}}}, 422),
    ("POST", SEARCH, {"filter": {"a": {}}}, 422),
    ("POST", SEARCH, {"filter": {"a": {"$gt": [1]}}}, 422),
    ("POST", SEARCH, {"filter": {"a": {"$gt": True}}}, 422),
    ("POST", SEARCH, {"filter": {f"k{n}": n for n in range(STORE_FILTER_KEYS_MAX + 1)}}, 422),
    ("POST", SEARCH, {"query": 1}, 422),
    ("POST", NAMESPACES, {"max_depth": 0}, 422),
    ("POST", NAMESPACES, {"max_depth": STORE_LABELS_MAX + 1}, 422),
    ("POST", NAMESPACES, {"limit": STORE_NAMESPACES_LIMIT_MAX + 1}, 422),
    ("POST", NAMESPACES, {"offset": -1}, 422),
]


async def send(http: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
    """One request; bytes go as they are."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    return await http.request(method, path, content=content)


def stored(stack: Stack) -> Any:
    """Every item of the database."""
    with psycopg.connect(stack.dsn) as connection:
        return connection.execute("SELECT prefix, key, value, updated_at FROM store ORDER BY 1, 2").fetchall()


async def test_odd_and_bad_requests_get_their_status_and_bad_ones_change_nothing(live: Stack) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        wrong = [(case[:3], answer.status_code, answer.text[:300]) for case in ACCEPTED
                 if (answer := await send(http, *case[:3])).status_code != case[3]]  # fmt: skip
        before = stored(live)
        for case in REFUSED:
            answer = await send(http, *case[:3])
            if answer.status_code != case[3] or not answer.json()["detail"]:
                wrong.append((case[:3], answer.status_code, answer.text[:300]))
    assert [(str(case)[:200], *rest) for case, *rest in wrong] == []
    assert stored(live) == before


async def test_an_answer_that_does_not_fit_is_refused(live: Stack) -> None:
    async with httpx.AsyncClient(base_url=live.url, timeout=30) as http:
        for number in range(9):
            value = of_bytes(STORE_VALUE_BYTES_MAX)
            await http.put(ITEMS, json=item(namespace=["large"], key=str(number), value=value))
        answer = await http.post(SEARCH, json={"namespace_prefix": ["large"]})
        assert answer.status_code == 413 and "limit" in answer.text
        assert len((await http.post(SEARCH, json={"namespace_prefix": ["large"], "limit": 5})).json()["items"]) == 5


async def test_without_a_runner_the_store_is_unavailable(stack: Stack) -> None:
    stack.start(runners=0, projectors=0)
    async with httpx.AsyncClient(base_url=stack.url) as http:
        for method, path, body in (("PUT", ITEMS, item()), ("GET", f"{ITEMS}?namespace=a&key=k", None),
                                   ("DELETE", ITEMS, {"namespace": ["a"], "key": "k"}), ("POST", SEARCH, {}),
                                   ("POST", NAMESPACES, {})):  # fmt: skip
            answer = await send(http, method, path, body)
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
            assert "no runner" in answer.json()["detail"]


class Letters(Embeddings):
    """Counts three letters; `broken` says how to go wrong."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.broken == "raises":
            raise ValueError("a secret")
        size = 2 if self.broken == "short" else 3
        return [[float(text.count(letter)) + 0.01 for letter in "abc"[:size]] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def semantic(broken: str = "", dims: int = 3) -> StoreSettings:
    """Settings with an index."""
    return StoreSettings(Semantic(Letters(broken), dims))


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database_dsn, 4)
    yield opened
    await opened.close()


async def test_a_tenant_sees_its_own_items_alone(pool: Pool) -> None:
    settings = semantic()
    await set_up_store(pool, settings)
    one, two = (TenantStore(pool, tenant, settings) for tenant in ("one", "two"))
    await one.aput(("shared",), "k", {"owner": "one"})
    await one.aput(("two",), "k", {"owner": "one"})
    await one.aput(("deep", "two"), "k", {"owner": "one"})
    await two.aput(("shared",), "k", {"owner": "two"})
    await two.aput(("one", "two"), "k", {"owner": "two"})
    for store, name in ((one, "one"), (two, "two")):
        found = await store.aget(("shared",), "k")
        assert found is not None and found.value == {"owner": name} and found.namespace == ("shared",)
        for query in (None, "owner"):
            assert {each.value["owner"] for each in await store.asearch((), query=query)} == {name}
    assert await one.asearch(("one",)) == [] == await one.asearch(("one", "two"))
    assert await two.aget(("deep", "two"), "k") is None
    assert await one.alist_namespaces() == [("deep", "two"), ("shared",), ("two",)]
    assert await two.alist_namespaces() == [("one", "two"), ("shared",)]
    assert await one.alist_namespaces(suffix=("two",)) == [("deep", "two"), ("two",)]
    assert await two.alist_namespaces(suffix=("two", "shared")) == [], "a suffix does not reach the tenant"
    assert await two.alist_namespaces(prefix=("one",), suffix=("one", "two")) == [("one", "two")]
    assert await one.alist_namespaces(prefix=("*",), max_depth=1) == [("deep",), ("shared",), ("two",)]
    await two.adelete(("shared",), "k")
    assert await one.aget(("shared",), "k") is not None and await two.aget(("shared",), "k") is None


async def test_names_that_begin_alike_or_look_like_patterns_are_strangers(pool: Pool) -> None:
    """Rules give a user the namespace of their name; a search below it must not find those of longer names."""
    settings = semantic()
    await set_up_store(pool, settings)
    tenants = {name: TenantStore(pool, name, settings) for name in ("a_b", "a_bc", "axb")}
    for tenant, store in tenants.items():
        for label in ("bob", "bobby", "b_b", "%", "bo", "*"):
            await store.aput((label, "notes"), "k", {"owner": f"{tenant}/{label}"})
    for tenant, store in tenants.items():
        for label in ("bob", "bo", "b_b", "%"):
            for query in (None, "owner"):
                found = await store.asearch((label,), query=query, limit=100)
                assert [each.value["owner"] for each in found] == [f"{tenant}/{label}"]
            assert await store.alist_namespaces(prefix=(label,)) == [(label, "notes")]
        everything = await store.asearch((), limit=100)
        assert {each.value["owner"].partition("/")[0] for each in everything} == {tenant}


async def test_what_a_graph_may_not_store(pool: Pool) -> None:
    await set_up_store(pool, StoreSettings())
    store = TenantStore(pool, "t", StoreSettings())
    with pytest.raises(InvalidNamespaceError):
        await store.aput((), "k", {})
    with pytest.raises(InvalidArgument, match="label"):
        await store.aput(("l" * (STORE_LABEL_BYTES_MAX + 1),), "k", {})
    with pytest.raises(InvalidArgument, match="key"):
        await store.aput(("a",), "k" * (STORE_KEY_BYTES_MAX + 1), {})
    with pytest.raises(TooLarge, match=str(STORE_VALUE_BYTES_MAX)):
        await store.aput(("a",), "k", of_bytes(STORE_VALUE_BYTES_MAX + 1))
    with pytest.raises(Rejected, match="Postgres cannot store"):
        await store.aput(("a",), "k", {"text": "a\x00b"})
    assert await store.asearch(()) == []


@pytest.mark.parametrize("broken", ["raises", "short"])
async def test_an_embed_function_that_fails_stores_nothing_and_says_no_secret(pool: Pool, broken: str) -> None:
    await set_up_store(pool, semantic())
    store = TenantStore(pool, "t", semantic(broken))
    with pytest.raises(Unavailable, match="embed function") as raised:
        await store.aput(("a",), "k", {"text": "abc"})
    assert "secret" not in raised.value.message
    await store.aput(("a",), "k", {"text": "abc"}, index=False)
    with pytest.raises(Unavailable, match="embed function"):
        await store.asearch(("a",), query="abc")
    assert [each.key for each in await store.asearch(("a",))] == ["k"]


async def test_an_index_needs_pgvector(postgres_dsn: str, database_dsn: str) -> None:
    name = conninfo_to_dict(database_dsn)["dbname"]
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        hide = "ALTER DATABASE {} SET extension_control_path = '/nowhere'"
        admin.execute(sql.SQL(hide).format(sql.Identifier(str(name))))
    pool = await open_pool(database_dsn, 2)
    try:
        with pytest.raises(BadConfig, match=r"`store.index` needs the extension `vector`"):
            await open_stores(database_dsn, pool, semantic())
        await set_up_store(pool, StoreSettings())
        await TenantStore(pool, "t", StoreSettings()).aput(("a",), "k", {})
    finally:
        await pool.close()


async def test_an_index_of_other_dimensions_is_refused(pool: Pool) -> None:
    await set_up_store(pool, semantic())
    await set_up_store(pool, semantic())
    with pytest.raises(BadConfig, match=r"has 4 dimensions.* have 3"):
        await set_up_store(pool, semantic(dims=4))


async def test_the_sweep_deletes_what_has_expired_and_its_vectors(pool: Pool) -> None:
    await set_up_store(pool, semantic())
    store = TenantStore(pool, "t", semantic())
    await store.aput(("a",), "stays", {"text": "a"}, ttl=5)
    await store.aput(("a",), "lasts", {"text": "a"})
    await store.aput(("a",), "goes", {"text": "a"}, ttl=1)
    async with pool.connection() as connection:
        await connection.execute("UPDATE store SET expires_at = now() - interval '1 s' WHERE key = 'goes'")
        await connection.execute(
            "INSERT INTO store (prefix, key, value, expires_at) SELECT 't.many', n::text, '{}', now() - interval '1 s' "
            "FROM generate_series(1, %s) n",
            (STORE_SWEEP_ROWS,),
        )
    assert await sweep_expired(pool) == STORE_SWEEP_ROWS + 1
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT DISTINCT key FROM store_vectors ORDER BY key")).fetchall()
    assert [row["key"] for row in rows] == ["lasts", "stays"]


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"index": {"embed": "./e.py:embed"}}, "dims"),
    ({"index": {"dims": 0, "embed": "./e.py:embed"}}, "dims"),
    ({"index": {"dims": STORE_DIMENSIONS_MAX + 1, "embed": "./e.py:embed"}}, "dims"),
    ({"index": {"dims": 3, "embed": "./none.py:embed"}}, "does not exist"),
    ({"index": {"dims": 3, "embed": "./e.py:none"}}, "none"),
    ({"index": {"dims": 3, "embed": "./e.py:number"}}, "int"),
    ({"index": {"dims": 3, "embed": "./broken.py:embed"}}, "ZeroDivisionError"),
    ({"index": {"dims": 3, "embed": "nobody:model"}}, "nobody:model"),
    ({"index": {"dims": 3, "embed": "./e.py:embed", "fields": "text"}}, "fields"),
    ({"ttl": {"default_ttl": STORE_TTL_MINUTES_MIN / 2}}, "default_ttl"),
    ({"ttl": {"default_ttl": STORE_TTL_MINUTES_MAX + 1}}, "default_ttl"),
    ({"ttl": {"sweep_interval_minutes": 0}}, "sweep_interval_minutes"),
    ({"path": "./e.py:store"}, "store.path"),
]


@pytest.mark.parametrize(("config", "named"), BAD_SETTINGS, ids=lambda value: str(value)[:60])
def test_settings_that_are_refused(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    (tmp_path / "e.py").write_text("number = 7\ndef embed(texts): return [[1.0] for _ in texts]\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    path = tmp_path / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"g": "./g.py:graph"}, "store": config}))
    with pytest.raises(BadConfig, match="store") as raised:
        load_store_settings(path)
    assert named in raised.value.message
