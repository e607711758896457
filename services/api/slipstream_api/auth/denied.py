"""What a handler of the user's says to a request that it refuses."""

from slipstream_schemas.errors import Forbidden


class Denied(Forbidden):
    """A handler refused the request and chose the status, below 400 and above 599 excepted."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status if 400 <= status <= 599 else 403
        self.headers = headers
