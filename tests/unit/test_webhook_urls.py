"""Where a webhook may go: whatever form an address takes, a private one is refused."""

import base64
import hashlib
import hmac

import pytest

from slipstream_api.webhook_post import headers_of, key_of
from slipstream_api.webhook_urls import Target, addresses_of, is_public, parse
from slipstream_api.webhooks import pause_s
from slipstream_schemas.errors import InvalidArgument, Rejected
from slipstream_schemas.limits import WEBHOOK_RETRY_S, WEBHOOK_RETRY_S_MAX, WEBHOOK_URL_CHARS_MAX

PRIVATE = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "127.0.0.1.", "0",
    "0.0.0.0", "10.0.0.1", "10.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0xa9fea9fe", "100.64.0.1",
    "100.100.100.200", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
    "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]",
    "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "localhost", "LOCALHOST", "localhost.", "app.localhost",
    "localhost.localdomain", "metadata.google.internal", "[::ffff:0:127.0.0.1]", "[2001:4860::1%25eth0]",
    "[2001:4860::1%eth0]", "168.63.129.16", "0xa83f8110", "[::ffff:168.63.129.16]", "192.0.0.8", "192.88.99.1",
    "[3fff::1]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fec0::1]", "[5f00::1]", "240.0.0.1", "192.0.0.170",
    "1.1.1.1%2f@127.0.0.1", "0x7f.0.0.1", "00000177.0.0.1", "169.254.43518",
]  # fmt: skip
MALFORMED = [
    "", "/relative", "//no.scheme/", "ftp://example.com/", "file:///etc/passwd", "http://", "http:///path",
    "http://example.com:0/", "http://example.com:99999/", "http://example.com:x/", "http://exa mple.com/",
    "http://example.com/\r\nx: y", "http://example.com\\@127.0.0.1/", "http://[::1", "http://example%2ecom/",
    "http://user@example.com/", "http://user:password@example.com/", "http://example.com@127.0.0.1/",
    "http://@example.com/",
    "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "gopher://example.com/", "data:,x",
    "http:/\\127.0.0.1/", "http:example.com", "https:///127.0.0.1/", "http://[127.0.0.1]/",
    "http://[::ffff:127.0.0.1/", "http://127.0.0.1:80:80/", "http://example.com\t/", "http://example.com:-1/",
    "http://example.com:0x50/", "http://[v1.x]/", "http://exam\x00ple.com/", "http://%31%32%37.0.0.1/",
    "http://ex\u3002ample.com/", "http://\u2460\u2461\u2466.0.0.1/", "http://-x.com/", "http://a..b/",
    "http://example.com/" + "a" * WEBHOOK_URL_CHARS_MAX,
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse(f"http://{host}:8080/hook", allow_private=False)
    assert refused.value.loc == ("body", "webhook")


@pytest.mark.parametrize("url", MALFORMED)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_is_no_plain_url_is_refused(url: str, allow_private: bool) -> None:
    with pytest.raises(InvalidArgument):
        parse(url, allow_private=allow_private)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("HTTP://Example.com:8080/a%20b?x=1&y#part", Target("http", "example.com", 8080, "/a%20b?x=1&y")),
        ("https://hooks.example.com.:443/?@", Target("https", "hooks.example.com", 443, "/?@")),
        ("http://8.8.8.8/", Target("http", "8.8.8.8", 80, "/")),
        ("http://[2606:4700::1111]:81/", Target("http", "2606:4700::1111", 81, "/")),
    ],
)
def test_public_urls_are_taken_apart(url: str, target: Target) -> None:
    assert parse(url, allow_private=False) == target


def test_the_host_header_is_that_of_the_url() -> None:
    urls = ["https://example.com:443/", "http://example.com:81/", "http://[2606:4700::1111]:81/"]
    hosts = [parse(url, allow_private=False).authority for url in urls]
    assert hosts == ["example.com", "example.com:81", "[2606:4700::1111]:81"]


def test_private_addresses_may_be_allowed() -> None:
    assert parse("http://127.0.0.1:1/", allow_private=True) == Target("http", "127.0.0.1", 1, "/")
    assert parse("http://localhost/", allow_private=True).host == "localhost"


def test_addresses_that_are_public() -> None:
    assert is_public("8.8.8.8")
    assert is_public("::ffff:8.8.8.8")
    assert is_public("2606:4700::1111")


async def test_a_name_is_checked_where_it_leads_to() -> None:
    with pytest.raises(InvalidArgument, match="which is refused"):
        await addresses_of(Target("http", "localhost", 80, "/"), allow_private=False)
    assert set(await addresses_of(Target("http", "localhost", 80, "/"), allow_private=True)) & {"127.0.0.1", "::1"}


def test_a_delivery_is_signed_over_id_time_and_body() -> None:
    key = key_of("whsec_" + base64.b64encode(b"secret").decode())
    assert key == key_of("secret") == b"secret"
    headers = headers_of(key, "d", 12, b"{}")
    signed = base64.b64encode(hmac.new(b"secret", b"d.12.{}", hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{signed}"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("d", "12")
    assert "webhook-signature" not in headers_of(b"", "d", 12, b"{}")
    with pytest.raises(Rejected):
        key_of("whsec_no base64")


def test_pauses_double_up_to_their_bound() -> None:
    assert [pause_s(tries) for tries in (1, 2, 3)] == [WEBHOOK_RETRY_S, 2 * WEBHOOK_RETRY_S, 4 * WEBHOOK_RETRY_S]
    assert pause_s(10_000) == WEBHOOK_RETRY_S_MAX
