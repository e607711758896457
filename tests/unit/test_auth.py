"""Auth handlers: which one is asked, what it may say, and how a caller is made of what `authenticate` returns."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import Auth

from slipstream_api.auth.caller import Caller, caller_of
from slipstream_api.auth.denied import Denied
from slipstream_api.auth.handlers import Handlers
from slipstream_api.auth.loading import load_handlers
from slipstream_schemas.errors import Forbidden, InvalidArgument, Rejected, Unavailable
from slipstream_schemas.limits import (
    AUTH_FILTER_DEPTH_MAX,
    AUTH_FILTER_TERMS_MAX,
    AUTH_HANDLER_DEADLINE_S,
    AUTH_THREADS,
    AUTH_USER_BYTES_MAX,
    TOKEN_CHARS_MAX,
)
from slipstream_schemas.metadata_filter import Contains, Either, Equal, Every, parse_filter
from slipstream_schemas.user_code import BadConfig

ALICE = Caller(identity="alice", user="alice")
SHORT_S = 0.02
NOWHERE: Any = ({}, None)


def register(auth: Auth, authenticate: Any) -> None:
    """Register a handler that need not be a coroutine, which the SDK's types ask for and its servers do not."""
    auth.authenticate(authenticate)


def auth_with(**answers: Any) -> Auth:
    """An Auth whose handlers answer so: `threads_create=…`, `threads=…`, `any_create=…`, `every=…`, `glob=…`."""
    auth = Auth()
    register(auth, lambda: "alice")
    for name, answer in answers.items():

        async def handler(ctx: Any, value: Any, answer: Any = answer) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer(ctx, value) if callable(answer) else answer

        resource, _, action = name.partition("_")
        if name == "glob":
            auth.on(handler)
        else:
            resource = "*" if resource in ("any", "every") else resource
            auth.on(resources=resource, actions=action or "*")(handler)
    return auth


async def said(auth: Auth, resource: str = "threads", action: str = "create", value: Any = None) -> Any:
    """What the rules say."""
    return await Handlers(auth, SHORT_S).permit(ALICE, resource, action, {} if value is None else value)


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ((), "threads_create"),
        (("threads_create",), "threads"),
        (("threads_create", "threads"), "any_create"),
        (("threads_create", "threads", "any_create"), "glob"),
    ],
)
async def test_the_most_specific_handler_answers_alone(gone: tuple[str, ...], expected: str) -> None:
    names = [name for name in ("glob", "any_create", "threads", "threads_create") if name not in gone]
    auth = auth_with(**{name: {"by": name} for name in names})
    assert await said(auth) == Every((Equal("by", expected),))


async def test_without_a_handler_everything_is_permitted() -> None:
    auth = auth_with(assistants={"by": "assistants"})
    assert await said(auth) is None
    assert Handlers(auth).restricts and not Handlers(auth_with()).restricts


async def test_a_handler_sees_who_asks_for_what_and_changes_the_value() -> None:
    def look(ctx: Any, value: dict[str, Any]) -> None:
        value["metadata"] = {"owner": f"{ctx.user} {ctx.resource} {ctx.action} {list(ctx.permissions)}"}

    value: dict[str, Any] = {}
    assert await said(auth_with(glob=look), value=value) is None
    assert value == {"metadata": {"owner": "alice threads create []"}}


@pytest.mark.parametrize("yes", [None, True, {}])
async def test_yes(yes: Any) -> None:
    assert await said(auth_with(glob=yes)) is None


@pytest.mark.parametrize(
    ("no", "status", "detail"),
    [
        (False, 403, "Forbidden"),
        (Auth.exceptions.HTTPException(status_code=402, detail="pay"), 402, "pay"),
        (Auth.exceptions.HTTPException(status_code=200, detail="odd"), 403, "odd"),
        (AssertionError("not yours"), 403, "not yours"),
        (ValueError("secret detail of a bug"), 403, "Forbidden"),
        ("a string", 403, "Forbidden"),
        ({"owner": {"$near": 1}}, 403, "Forbidden"),
    ],
)
async def test_no(no: Any, status: int, detail: str) -> None:
    with pytest.raises(Forbidden, match=f"^{detail}$") as refused:
        await said(auth_with(glob=no))
    assert not isinstance(refused.value, Denied) or refused.value.status == status


async def test_a_handler_that_takes_too_long_is_no_answer() -> None:
    auth = auth_with()

    @auth.on
    async def never(ctx: Any, value: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Unavailable):
        await said(auth)
    slow = Auth()
    register(slow, lambda: time.sleep(10 * SHORT_S))
    with pytest.raises(Unavailable):
        await Handlers(slow, SHORT_S).authenticate({}, NOWHERE)
    assert 0 < AUTH_HANDLER_DEADLINE_S <= 10 and AUTH_THREADS > 1


async def test_authenticate_gets_what_it_names_and_says_401_or_403() -> None:
    async def asks(path: str, authorization: str | None, extra: int = 1) -> Any:
        if authorization is None:
            raise Auth.exceptions.HTTPException(status_code=401, detail="who?", headers={"www-authenticate": "Bearer"})
        if path == "/":
            raise Auth.exceptions.HTTPException(status_code=404, detail="no")
        raise ValueError("a bug")

    auth = Auth()
    auth.authenticate(asks)
    handlers = Handlers(auth)
    assert handlers.arguments == ("path", "authorization")
    for arguments, status, detail in (
        ({"path": "/", "authorization": None}, 401, "who?"),
        ({"path": "/", "authorization": "x"}, 403, "no"),
        ({"path": "/x", "authorization": "x"}, 403, "Forbidden"),
    ):
        with pytest.raises(Denied, match=f"^{detail.replace('?', '.')}$") as denied:
            await handlers.authenticate(arguments, NOWHERE)
        assert denied.value.status == status
        assert bool(denied.value.headers) == (status == 401)


def test_an_auth_that_cannot_be_used_is_refused_at_the_start() -> None:
    odd = Auth()
    register(odd, lambda token: token)
    for auth, text in (
        (Auth(), "no @auth.authenticate"),
        (odd, "asks for 'token'"),
        ("text", "not a langgraph_sdk.Auth"),
    ):
        with pytest.raises(Rejected, match=text):
            Handlers(auth)


class Member:
    """A user of a user's own making."""

    def __init__(self) -> None:
        self.identity, self.permissions, self.tenant, self.org = "m", ["p"], "acme", {"id": 1}


def test_callers() -> None:
    assert caller_of("alice").identity == "alice" and caller_of("alice").tenant == "default"
    named = caller_of({"identity": "a@b.example", "tenant": "acme", "permissions": ["r"], "email": "e"})
    assert (named.tenant, named.permissions, named.user.email, named.user["email"]) == ("acme", ("r",), "e", "e")
    assert named.shown == {
        "identity": "a@b.example", "tenant": "acme", "permissions": ["r"], "email": "e",
        "display_name": "a@b.example", "is_authenticated": True,
    }  # fmt: skip
    member = caller_of(Member())
    assert (member.tenant, member.permissions) == ("acme", ("p",)) and isinstance(member.user, Member)
    assert member.shown is not None and member.shown["org"] == {"id": 1}
    assert caller_of((["a"], "alice")).permissions == ("a",)


@pytest.mark.parametrize(
    "wrong",
    [
        None, "", {}, {"identity": ""}, {"identity": 1}, {"identity": "a", "tenant": 1}, ("a",),
        {"identity": "a", "permissions": "all"}, {"identity": "a", "x": "x" * AUTH_USER_BYTES_MAX},
    ],
)  # fmt: skip
def test_no_callers(wrong: Any) -> None:
    with pytest.raises(Rejected):
        caller_of(wrong)


@pytest.mark.parametrize("tenant", ["a.b", "*", "a b", "", "x" * (TOKEN_CHARS_MAX + 1)])
def test_a_tenant_is_a_token(tenant: str) -> None:
    with pytest.raises(InvalidArgument):
        caller_of({"identity": "a", "tenant": tenant})


def test_filters() -> None:
    assert parse_filter({"a": 1, "b": {"$eq": "x"}}) == Every((Equal("a", 1), Equal("b", "x")))
    assert parse_filter({"a": {"$contains": "x"}}) == Every((Contains("a", ("x",)),))
    either = {"$or": [{"a": 1}, {"b": {"$contains": ["x", "y"]}}]}
    assert parse_filter(either) == Every((Either((Every((Equal("a", 1),)), Every((Contains("b", ("x", "y")),)))),))
    assert parse_filter({}) is None


def test_what_is_no_filter() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(AUTH_FILTER_DEPTH_MAX):
        deep = {"$and": [deep]}
    assert parse_filter(deep) is not None
    wide = {f"k{number}": 1 for number in range(AUTH_FILTER_TERMS_MAX + 1)}
    cases: list[Any] = [
        [], "x", {"$and": [deep]}, wide, {"$or": []}, {"$or": {}}, {"a": {}}, {"a": {"$eq": 1, "$contains": 2}},
        {"a": {"b": 1}}, {"a": {"$contains": [{}]}}, {"$not": 1},
    ]  # fmt: skip
    for wrong in cases:
        with pytest.raises(Rejected):
            parse_filter(wrong)


def test_loading(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "langgraph.json"
    assert load_handlers(config) is None
    config.write_text('{"graphs": {}}')
    assert load_handlers(config) is None
    assert "auth: none" in caplog.text and "everything" in caplog.text
    (tmp_path / "rules.py").write_text(
        "from langgraph_sdk import Auth\nauth = Auth()\nauth.authenticate(lambda: 'x')\n"
    )
    config.write_text('{"graphs": {}, "auth": {"path": "./rules.py:auth", "disable_studio_auth": true}}')
    assert load_handlers(config) is not None
    for wrong in ("./rules.py:other", "./nowhere.py:auth", "rules"):
        config.write_text(f'{{"auth": {{"path": "{wrong}"}}}}')
        with pytest.raises(BadConfig, match="auth in"):
            load_handlers(config)
