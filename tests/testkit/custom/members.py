"""A FastAPI application for members alone, and the auth handlers that know them by a token or by a cookie."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, WebSocket
from langgraph_sdk import Auth
from starlette.authentication import requires
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

auth = Auth()
MEMBERS = {"ann": {"permissions": ["paint"], "team": "red"}, "bob": {"permissions": [], "team": "blue"}}


def token_of(request: Request) -> str:
    """The name of a member; whoever knows it is one."""
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    return given or request.query_params.get("token", "") or request.cookies.get("member", "")


@auth.authenticate
async def authenticate(token: Annotated[str, Depends(token_of)]) -> Any:
    """The member."""
    if token == "banned":
        raise Auth.exceptions.HTTPException(status_code=403, detail="Not any more")
    if token not in MEMBERS:
        raise Auth.exceptions.HTTPException(status_code=401, detail="Who?", headers={"www-authenticate": "Bearer"})
    return {"identity": token, **MEMBERS[token]}


class Proxied:
    """Middleware that makes a credential of what a proxy says, and says whether it knew the user before the route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        knew = "user" in scope
        if scope["type"] == "http" and (name := Headers(scope=scope).get("x-proxy-user")):
            MutableHeaders(scope=scope)["authorization"] = f"Bearer {name}"

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-knew"] = str(knew)
            await send(message)

        await self.app(scope, receive, marked)


app = FastAPI()
app.add_middleware(Proxied)


@app.get("/me")
async def me(request: Request) -> dict[str, Any]:
    """Who asks."""
    user = request.user
    return {
        "identity": user.identity, "name": user.display_name, "known": user.is_authenticated, "team": user.team,
        "by_key": user["team"], "none": "plan" in user, "scopes": request.auth.scopes,
    }  # fmt: skip


@app.get("/open")
async def is_open(request: Request) -> bool:
    """Whether nobody looked who asks."""
    return "user" not in request.scope


@app.get("/paint")
@requires("paint")
async def paint(request: Request) -> str:
    """For some members."""
    return "painted"


@app.post("/form")
async def form(request: Request) -> str:
    """A body that is no JSON."""
    return f"{request.user.identity}: {(await request.body()).decode()}"


@app.get("/info")
async def info() -> dict[str, str]:
    """A page of ours that the server has too."""
    return {"club": "open"}


@app.websocket("/room")
async def room(socket: WebSocket) -> None:
    """Says who came in."""
    await socket.accept()
    await socket.send_text(str(socket.user.identity))
    await socket.close()
