"""Auth handlers: three users with tokens, and everybody sees what is theirs.

A real server checks a signed token here. `tenant` is Slipstream's: users of different tenants share nothing at all, ids
included; users of one tenant are told apart by the rules below.
"""

from typing import Any

from langgraph_sdk import Auth

auth = Auth()

USERS: dict[str, dict[str, Any]] = {
    "alice-token": {"identity": "alice@acme.example", "tenant": "acme", "permissions": ["threads:write"]},
    "bob-token": {"identity": "bob@acme.example", "tenant": "acme"},
    "carol-token": {"identity": "carol@umbrella.example", "tenant": "umbrella"},
}


@auth.authenticate
async def authenticate(authorization: str | None, query_params: dict[str, str]) -> Any:
    """The user behind `Authorization: Bearer …`, or behind `?token=…`, which a browser's WebSocket can send."""
    token = (authorization or "").removeprefix("Bearer ") or query_params.get("token", "")
    user = USERS.get(token)
    if user is None:
        raise Auth.exceptions.HTTPException(status_code=401, detail="Unknown token")
    return user


@auth.on
async def own(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, Any]:
    """What is made gets its owner; what is read, changed or listed must have it."""
    value["metadata"] = {**(value.get("metadata") or {}), "owner": ctx.user.identity}
    return {"owner": ctx.user.identity}


@auth.on.store
async def own_items(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> None:
    """Items have no metadata: they lie below their owner's name."""
    value["namespace"] = (ctx.user.identity.replace(".", "_"), *(value.get("namespace") or ()))
