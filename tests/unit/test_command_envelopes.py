"""Refusals as envelopes: each has a code of the protocol."""

from typing import get_args

import pytest
from langchain_protocol import ErrorCode

from slipstream_api.commands.envelope import refusal
from slipstream_schemas import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [(errors.Forbidden("x"), "permission_denied"), (errors.NotFound("x"), "no_such_run"),
     (errors.NoSuchInterrupt("x"), "no_such_interrupt"), (errors.InvalidArgument("x"), "invalid_argument"),
     (errors.TooLarge("x"), "invalid_argument"), (errors.Conflict("x"), "unknown_error")],
)  # fmt: skip
def test_a_refusal_has_a_code_of_the_protocol(error: errors.SlipstreamError, code: str) -> None:
    body = refusal(7, error).body
    assert (body["type"], body["id"], body["error"]) == ("error", 7, code)
    assert code in {name for each in get_args(ErrorCode) for name in get_args(each)}
