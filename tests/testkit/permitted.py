"""Services under test have the NATS users of production: whatever they lack a permission for fails a test.

A user's permissions name its region, so there are users for each region that a test may have. Who gives no user, as
tests themselves do, may do everything.
"""

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from slipstream_nats.permissions import rules, users

CONFIGS: Final = Path(__file__).parents[2] / "infra" / "nats"
REGIONS_MAX: Final = 800
PASSWORD: Final = "nats-password-of-tests"
KINDS: Final = ("api", "runner", "projector")
_numbers = itertools.count(1)


def new_region() -> str:
    """A region that no other test of this process has."""
    number = next(_numbers)
    assert number <= REGIONS_MAX, "more tests than regions: raise REGIONS_MAX"
    return f"t{number}"


@functools.cache
def accounts() -> str:
    """The accounts of a server that knows all regions."""
    found: list[object] = [{"user": "everything", "password": PASSWORD}]
    for number in range(1, REGIONS_MAX + 1):
        for user in users(f"t{number}"):
            if user.name in KINDS:
                name = f"{user.name}-t{number}"
                found.append({"user": name, "password": PASSWORD, "permissions": rules(user)})
    return f"\nno_auth_user: everything\naccounts {{ S {{ jetstream: enabled, users: {json.dumps(found)} }} }}\n"


def passwords(password: str = PASSWORD) -> dict[str, str]:
    """The variables that the configurations for operators ask for."""
    text = (CONFIGS / "permissions.conf").read_text()
    return dict.fromkeys(re.findall(r"\$(NATS_[A-Z_]+_PASSWORD)", text), password)


def url_of(url: str, kind: str, region: str) -> str:
    """The address of a server for a service; one that names a user already, or another region, stays."""
    if "," in url:
        return ",".join(url_of(each, kind, region) for each in url.split(","))
    parts = urlsplit(url)
    is_ours = region.startswith("t") and region[1:].isdigit() and kind in KINDS
    if not is_ours or "@" in parts.netloc:
        return url
    return parts._replace(netloc=f"{kind}-{region}:{PASSWORD}@{parts.netloc}").geturl()
