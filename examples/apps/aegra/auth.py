"""Who the agency's customers are, and that each of them sees their own journeys alone.

Aegra hands its handlers the headers as text. A real application checks a signed token here.
"""

from typing import Any

from langgraph_sdk import Auth

auth = Auth()

CUSTOMERS: dict[str, dict[str, Any]] = {
    "ada-token": {"identity": "ada", "display_name": "Ada", "permissions": ["book"]},
    "grace-token": {"identity": "grace", "display_name": "Grace", "permissions": []},
}


@auth.authenticate
async def authenticate(headers: dict[str, str]) -> Any:
    """The customer behind `Authorization: Bearer …`."""
    header = headers.get("authorization") or headers.get("Authorization") or ""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or token not in CUSTOMERS:
        raise Auth.exceptions.HTTPException(status_code=401, detail="Unknown customer")
    return {**CUSTOMERS[token], "is_authenticated": True}


@auth.on
async def nothing_else(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> bool:
    """What no handler below is about is refused."""
    return False


@auth.on.threads
async def own_threads(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, Any]:
    """Threads belong to whoever made them."""
    if ctx.action in ("create", "create_run"):
        value["metadata"] = {**(value.get("metadata") or {}), "owner": ctx.user.identity}
    return {"owner": ctx.user.identity}


@auth.on.threads.delete
async def keep_threads(ctx: Auth.types.AuthContext, value: Any) -> bool:
    """Journeys are kept for the accounts."""
    return False


@auth.on.assistants.read
async def all_assistants(ctx: Auth.types.AuthContext, value: Any) -> bool:
    """Everybody may talk to each of them."""
    return True


@auth.on.assistants.search
async def listed(ctx: Auth.types.AuthContext, value: Any) -> bool:
    """Everybody may see who can be talked to."""
    return True


@auth.on.store
async def own_notes(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> bool:
    """What is remembered of a customer is for that customer."""
    return tuple(value.get("namespace") or ())[:2] == ("customers", ctx.user.identity)
