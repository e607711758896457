"""What each service may publish and subscribe to, as code; rendered, it is the `accounts` block of a NATS server.

Every service is a user of its own in the account that holds the streams, and its inboxes begin with its own name, so
that none reads another's answers. What cannot be said with subjects is said in ADR 31: in one account the broker's
answer may be sent to a subject of a stream, so a hostile service can disturb a thread, though it cannot say anything
in its name. Who is not trusted with that much, an auditor, has an account of its own, from which only two subjects
of one consumer can be reached.
"""

import json
from collections.abc import Mapping, Sequence

import msgspec

from slipstream_nats.workqueue import CONSUMER
from slipstream_schemas import subjects
from slipstream_schemas.errors import Rejected
from slipstream_schemas.ids import check_token

FAMILIES = ("control", "threads")


class Feed(msgspec.Struct, frozen=True):
    """What an auditor reads: one family of a tenant's subjects, through a consumer that an operator makes."""

    family: str
    tenant: str

    @property
    def name(self) -> str:
        """The auditor's user and consumer."""
        return f"audit_{self.family}_{self.tenant}"

    def stream(self, region: str) -> str:
        """The stream that it lies in."""
        return subjects.control_stream(region) if self.family == "control" else subjects.threads_stream(region)

    def subjects(self, region: str) -> list[str]:
        """All that an auditor may publish to: asking its consumer for more, and acknowledging."""
        stream = self.stream(region)
        return [f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self.name}", f"$JS.ACK.{stream}.{self.name}.>"]


def feed_of(text: str) -> Feed:
    """A feed from `<family>.<tenant>`, as in `control.default`. Raises: Rejected."""
    family, _, tenant = text.partition(".")
    if family not in FAMILIES:
        raise Rejected(f"{text!r} is no feed: expected control.<tenant> or threads.<tenant>")
    return Feed(family, check_token(tenant))


class User(msgspec.Struct, frozen=True):
    """What one user may do. `replies` lets it answer what it was asked, once."""

    name: str
    publish: list[str]
    subscribe: list[str]
    refused: list[str] = []
    replies: bool = False

    @property
    def password_variable(self) -> str:
        """The server's environment variable with the password."""
        return f"NATS_{self.name.upper().replace('-', '_')}_PASSWORD"


def _js(*operations: str) -> list[str]:
    return [f"$JS.API.{operation}" for operation in operations]


def users(region: str, feeds: Sequence[Feed] = ()) -> list[User]:
    """The services of a region, and whoever makes its streams."""
    threads, control = subjects.threads_stream(region), subjects.control_stream(region)
    reads_control = _js(
        f"STREAM.INFO.{control}", f"CONSUMER.CREATE.{control}.*.control.{region}.>",
        f"CONSUMER.MSG.NEXT.{control}.*", f"CONSUMER.DELETE.{control}.*",
    )  # fmt: skip
    # A wildcard stands for a whole name, so the consumers that stay are taken out by theirs.
    others = [(feed.stream(region), feed.name) for feed in feeds]
    not_theirs = _js(*(f"CONSUMER.{act}.{stream}.{name}" for stream, name in others for act in ("MSG.NEXT", "DELETE")))
    not_deleted = [*not_theirs, *_js(f"CONSUMER.DELETE.{control}.{CONSUMER}")]
    no_queue = [*not_deleted, *_js(f"CONSUMER.MSG.NEXT.{control}.{CONSUMER}")]
    api = User(
        "api",
        [
            *(subjects.family(name, region) for name in ("control", "work", "crons")),
            f"rpc.{region}.graph.*", subjects.store_rpc(region), subjects.upkeep_rpc(region),
            subjects.unwatched_subject(region),
            *_js(
                f"STREAM.INFO.{control}", f"STREAM.MSG.GET.{control}", f"STREAM.PURGE.{control}",
                f"CONSUMER.CREATE.{control}.*.crons.{region}.>", f"CONSUMER.MSG.NEXT.{control}.*",
                f"CONSUMER.DELETE.{control}.*",
                f"STREAM.INFO.{threads}", f"STREAM.MSG.GET.{threads}", f"DIRECT.GET.{threads}",
                f"CONSUMER.CREATE.{threads}.*.threads.{region}.>", f"CONSUMER.MSG.NEXT.{threads}.*",
                f"CONSUMER.DELETE.{threads}.*",
            ),
        ],
        [subjects.position_subject(region), subjects.unwatched_subject(region)],
        no_queue,
    )  # fmt: skip
    runner = User(
        "runner",
        [
            *(subjects.family(name, region) for name in ("threads", "leases", "control", "work")),
            f"crons.{region}.*.*.start", f"rpc.{region}.runner.*", f"rpc.{region}.graph.*",
            *reads_control,
            f"$JS.ACK.{control}.{CONSUMER}.>",
            *_js(f"STREAM.MSG.GET.{control}", f"STREAM.PURGE.{control}", f"STREAM.MSG.GET.{threads}",
                 f"STREAM.PURGE.{threads}"),
        ],
        [f"rpc.{region}.>"],
        not_deleted,
        replies=True,
    )  # fmt: skip
    projector = User(
        "projector",
        [subjects.position_subject(region), *reads_control, *_js(f"STREAM.MSG.GET.{threads}")],
        [],
        no_queue,
    )
    # It makes streams and the consumers that stay, and reads the log for a rebuild; it takes nothing away.
    provision = User(
        "provision",
        [
            *reads_control,
            *_js(
                f"STREAM.INFO.{threads}", f"STREAM.CREATE.{threads}", f"STREAM.CREATE.{control}",
                f"STREAM.MSG.GET.{threads}", f"STREAM.MSG.GET.{control}",
                f"CONSUMER.INFO.{threads}.*", f"CONSUMER.INFO.{control}.*",
                f"CONSUMER.DURABLE.CREATE.{threads}.*", f"CONSUMER.DURABLE.CREATE.{control}.*",
            ),
        ],
        [],
        no_queue,
    )  # fmt: skip
    return [api, runner, projector, provision]


def inbox_of(user: User) -> str:
    """Where answers to a user come."""
    return f"_INBOX_{'operator' if user.name == 'provision' else user.name}.>"


def rules(user: User) -> dict[str, object]:
    """The `permissions` of a user, in the server's words."""
    publish: dict[str, object] = {"allow": user.publish}
    if user.refused:
        publish["deny"] = user.refused
    found: dict[str, object] = {"publish": publish, "subscribe": {"allow": [inbox_of(user), *user.subscribe]}}
    if user.replies:
        found["allow_responses"] = {"max": 1, "expires": "1m"}
    return found


def render(region: str, feeds: Sequence[Feed] = ()) -> str:
    """The `accounts` block for a region, with passwords from the server's environment."""
    audited = "".join(f" --audit {feed.family}.{feed.tenant}" for feed in feeds)
    lines = [
        f"# Made by `slipstream permissions --region {region}{audited}`.",
        "# Included by single.conf and cluster.conf. Each password is a variable of the server's environment.",
        "# Who may do what, and what permissions cannot hold: docs/adr/0031-permissions.md.",
        "",
        "accounts {",
        "  SLIPSTREAM {",
        "    jetstream: enabled",
        "    users: [",
        "      # You: whatever no service may. Needed for upgrades and emergencies alone.",
        "      { user: slipstream, password: $NATS_SLIPSTREAM_PASSWORD }",
    ]
    for user in users(region, feeds):
        lines += _user_lines(user.name, user.password_variable, rules(user), "      ")
    lines.append("    ]")
    if feeds:
        lines.append("    exports: [")
        for feed in feeds:
            asking, acknowledging = feed.subjects(region)
            account = feed.name.upper()
            lines.append(f'      {{ service: "{asking}", response_type: stream, accounts: [{account}] }}')
            lines.append(f'      {{ service: "{acknowledging}", accounts: [{account}] }}')
        lines.append("    ]")
    lines.append("  }")
    for feed in feeds:
        lines += _auditor_lines(feed, region)
    return "\n".join([*lines, "}", ""])


def _auditor_lines(feed: Feed, region: str) -> list[str]:
    permissions = {"publish": {"allow": feed.subjects(region)}, "subscribe": {"allow": ["_INBOX.>"]}}
    imports = [f'      {{ service: {{ account: SLIPSTREAM, subject: "{each}" }} }}' for each in feed.subjects(region)]
    user = User(feed.name, [], [])
    return [
        "",
        f"  # Reads {feed.family}.{region}.{feed.tenant}.> through the consumer {feed.name}, and nothing else.",
        f"  {feed.name.upper()} {{",
        "    users: [",
        *_user_lines(feed.name, user.password_variable, permissions, "      "),
        "    ]",
        "    imports: [",
        *imports,
        "    ]",
        "  }",
    ]


def _user_lines(name: str, variable: str, permissions: Mapping[str, object], margin: str) -> list[str]:
    # JSON is a subset of what the server reads.
    shown = json.dumps(permissions, indent=2).replace("\n", f"\n{margin}  ")
    return [f"{margin}{{", f"{margin}  user: {name}", f"{margin}  password: ${variable}",
            f"{margin}  permissions: {shown}", f"{margin}}}"]  # fmt: skip
