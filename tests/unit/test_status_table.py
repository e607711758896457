"""The statuses in docs/migrate.md are what the API describes, and it describes what it serves."""

import re
from typing import Any

import pytest

import status_table
from slipstream_api.app import ROUTES
from slipstream_api.openapi import DOCUMENT


def test_the_committed_table_is_the_generated_one() -> None:
    assert status_table.PAGE.read_text(encoding="utf-8") == status_table.generate()


def test_every_route_is_described_and_every_description_served() -> None:
    served = {
        (re.sub(r":str}", "}", path), str(method).lower())
        for route in ROUTES
        for path in route.paths
        for method in getattr(route, "http_methods", ())
    }
    described = {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert described == served


def test_a_row_tells_success_from_refusal() -> None:
    document: dict[str, Any] = {
        "paths": {"/a/{b}": {"get": {"summary": "Get A", "responses": {"404": {}, "200": {}, "202": {}}}}}
    }
    assert status_table.table(document).endswith("| `GET /a/{b}` | Get A | 200, 202 | 404 |\n")


def test_a_page_without_the_section_is_refused() -> None:
    with pytest.raises(status_table.NoSection):
        status_table.replaced("# Page\n", "| a |\n")
