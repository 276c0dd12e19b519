"""What trusted proxies say about the client, and what others say."""

import asgi_websockets
import pytest
from asgi_servers import everywhere, serving

from nghttp2py.asgi import ASGIOptions
from nghttp2py.asgi.forwarded import ForwardedPolicy, Overrides
from nghttp2py.trusted import TrustedAddresses, read_address

PROXY = ("127.0.0.1", 4711)
STRANGER = ("203.0.113.9", 4711)


def fields(**given):
    return [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()]


def client_of(value, trusted="127.0.0.1, ::1, 10.0.0.0/8", peer=PROXY):
    changed = ForwardedPolicy(trusted).apply(peer, [(b"x-forwarded-for", value)])
    return changed and changed.client


# ---- Trusted proxies ----


@pytest.mark.parametrize(
    ("trusted", "peer", "answer"),
    [
        ("127.0.0.1,::1", ("127.0.0.1", 1), True),
        ("127.0.0.1,::1", ("127.0.0.2", 1), False),
        (["127.0.0.1", "::1"], ("::1", 1, 0, 0), True),
        ("127.0.0.1", ("::ffff:127.0.0.1", 1, 0, 0), True),
        ("0:0:0:0:0:0:0:1", ("::1", 1, 0, 0), True),
        ("10.0.0.0/8", ("10.9.8.7", 1), True),
        ("10.1.2.3/8", ("10.9.8.7", 1), True),
        ("10.0.0.0/8", ("11.9.8.7", 1), False),
        ("2001:db8::/32", ("2001:db8::7", 1, 0, 0), True),
        ("2001:db8::/32", ("10.9.8.7", 1), False),
        ("fe80::/10", ("fe80::1%eth0", 1, 0, 2), True),
        (" 10.0.0.0/8 , *", ("11.9.8.7", 1), True),
        ("*", "", True),
        ("*", None, True),
        ("", ("127.0.0.1", 1), False),
        ([], ("127.0.0.1", 1), False),
        ("127.0.0.1", None, False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", ("testclient", 1), False),
    ],
)
def test_addresses_and_networks_are_trusted(trusted, peer, answer):
    addresses = TrustedAddresses(trusted)
    assert addresses.trusts(peer) is answer
    assert addresses.trusts(peer) is answer  # the second time from its memory


@pytest.mark.parametrize(
    ("trusted", "peer", "local", "answer"),
    [
        ("/run/app.sock", "", "/run/app.sock", True),
        ("/run/app.sock", "/run/app.sock", "", True),
        ("unix:/run/app.sock", "", "/run/app.sock", True),
        ("@app", "", "\0app", True),
        ("@app", b"\0app", None, True),
        ("/run/app.sock", "", "/run/other.sock", False),
        ("unix:", "", "/run/other.sock", True),
        ("unix:", ("10.0.0.1", 1), ("10.0.0.2", 1), False),
        ("127.0.0.1", "", "/run/app.sock", False),
    ],
)
def test_a_unix_socket_is_trusted_by_its_path(trusted, peer, local, answer):
    assert TrustedAddresses(trusted).trusts(peer, local) is answer


@pytest.mark.parametrize(
    "trusted", ["localhost", "127.0.0.l", "10.0.0.0/33", "a/b", "example.org,::1"]
)
def test_what_can_never_be_an_address_is_refused_with_its_name(trusted):
    with pytest.raises(ValueError) as info:
        ForwardedPolicy(trusted)
    assert trusted.split(",")[0] in str(info.value)


def test_an_address_of_another_type_is_refused():
    with pytest.raises(TypeError, match="str"):
        TrustedAddresses([127])
    with pytest.raises(TypeError, match="prefix"):
        ForwardedPolicy(prefix="/")


def test_what_is_known_of_peers_has_a_bound():
    addresses = TrustedAddresses("10.0.0.0/8")
    for number in range(5000):
        addresses.trusts_host(f"192.0.{number // 256}.{number % 256}")
    addresses.trusts_host("x" * 100_000)
    assert len(addresses._known) <= 1024
    assert max(map(len, addresses._known)) <= 64


def test_a_very_long_address_is_none():
    assert read_address("1" * 100_000) is None


def test_trust_can_be_read():
    assert repr(TrustedAddresses("::1,10.0.0.0/8,/a,unix:")) == (
        "TrustedAddresses('/a,10.0.0.0/8,::1,unix:')"
    )
    assert repr(ForwardedPolicy("*")) == "ForwardedPolicy(TrustedAddresses('*'))"


# ---- X-Forwarded-For and -Proto ----


def test_a_stranger_changes_nothing():
    given = fields(x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    assert ForwardedPolicy().apply(STRANGER, given) is None
    assert ForwardedPolicy().apply(None, given) is None


def test_a_trusted_proxy_tells_client_and_scheme():
    given = fields(x_forwarded_for="1.2.3.4", x_forwarded_proto="https")
    assert ForwardedPolicy().apply(PROXY, given) == Overrides(
        client=("1.2.3.4", 0), scheme="https"
    )


def test_a_proxy_that_tells_nothing_changes_nothing():
    given = [(b"host", b"a"), (b"x-forwarded-port", b"1"), (b"forwarded", b"for=1")]
    assert ForwardedPolicy(host=True, prefix=True).apply(PROXY, given) is None


@pytest.mark.parametrize(
    ("value", "client"),
    [
        (b"1.2.3.4", ("1.2.3.4", 0)),
        (b"6.6.6.6, 1.2.3.4", ("1.2.3.4", 0)),
        (b"6.6.6.6, 1.2.3.4, 10.0.0.7", ("1.2.3.4", 0)),
        (b"6.6.6.6,1.2.3.4,10.0.0.7,10.0.0.8", ("1.2.3.4", 0)),
        (b"10.0.0.9, 10.0.0.7", ("10.0.0.9", 0)),
        (b" 1.2.3.4 ,, ", ("1.2.3.4", 0)),
        (b"1.2.3.4:5678", ("1.2.3.4", 5678)),
        (b"1.2.3.4, 10.0.0.7:80", ("1.2.3.4", 0)),
        (b"1.2.3.4:99999", ("1.2.3.4", 0)),
        (b"1.2.3.4:http", ("1.2.3.4", 0)),
        (b"2001:db8::7", ("2001:db8::7", 0)),
        (b"[2001:db8::7]", ("2001:db8::7", 0)),
        (b"[2001:db8::7]:81", ("2001:db8::7", 81)),
        (b"6.6.6.6, ::ffff:1.2.3.4", ("::ffff:1.2.3.4", 0)),
    ],
)
def test_the_nearest_address_that_is_not_trusted_is_the_client(value, client):
    assert client_of(value) == client


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b" ", b",", b"unknown", b"_hidden", b"1.2.3", b"1.2.3.4.5", b"[::1"),
        *(b"[1.2.3.4]", b"[::1]x", b"1.2.3.4;1", b"\xff\xfe", b"a" * 60_000),
        *(b"fe80::1%eth0", b"example.org", b"1.2.3.4\x00", b"," * 60_000),
        # What is before it may be the client's own.
        *(b"6.6.6.6, unknown", b"6.6.6.6, unknown, 10.0.0.7"),
    ],
)
def test_what_is_no_address_is_ignored(value):
    assert client_of(value) is None


def test_a_list_may_be_in_several_fields():
    given = [(b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-for", b"1.2.3.4")]
    assert ForwardedPolicy().apply(PROXY, given).client == ("1.2.3.4", 0)


def test_where_everyone_is_trusted_the_first_is_the_client():
    assert client_of(b"1.2.3.4, 5.6.7.8, \xf0\xfd, unix:, ::1", "*") == ("1.2.3.4", 0)
    assert client_of(b"rubbish, 5.6.7.8", "*") is None


def test_only_the_end_of_an_endless_list_is_read():
    assert client_of(b"1.1.1.1," * 8000 + b"1.2.3.4") == ("1.2.3.4", 0)
    assert client_of(b"10.0.0.1," * 8000 + b"10.0.0.2") == ("10.0.0.1", 0)


@pytest.mark.parametrize(
    ("value", "scheme", "of_websocket"),
    [
        ("https", "https", "wss"),
        ("http", "http", "ws"),
        ("wss", "https", "wss"),
        ("ws", "http", "ws"),
        (" HTTPS ", "https", "wss"),
        ("ftp", None, None),
        ("", None, None),
        ("https;", None, None),
    ],
)
def test_the_scheme_fits_the_kind_of_the_scope(value, scheme, of_websocket):
    for websocket, expected in ((False, scheme), (True, of_websocket)):
        changed = ForwardedPolicy().apply(
            PROXY, fields(x_forwarded_proto=value), websocket=websocket
        )
        assert (changed and changed.scheme) == expected


@pytest.mark.parametrize(
    ("addresses", "schemes", "scheme"),
    [
        ("1.2.3.4, 10.0.0.7", "https, http", "https"),
        ("1.2.3.4", "https, http", "http"),  # the first is the client's own
        ("6.6.6.6, 1.2.3.4", "https, http", "http"),
        ("6.6.6.6, 1.2.3.4, 10.0.0.7", "http, https, http", "https"),
        ("6.6.6.6, 1.2.3.4, 10.0.0.7", "https", "https"),
    ],
)
def test_a_list_of_schemes_is_read_as_that_of_addresses(addresses, schemes, scheme):
    policy = ForwardedPolicy("127.0.0.1, 10.0.0.0/8")
    given = fields(x_forwarded_for=addresses, x_forwarded_proto=schemes)
    assert policy.apply(PROXY, given).scheme == scheme


# ---- Host and prefix ----


def test_host_and_prefix_are_heeded_only_if_that_is_asked_for():
    given = fields(x_forwarded_host="example.org:8443", x_forwarded_prefix="/app/")
    assert ForwardedPolicy().apply(PROXY, given) is None
    assert ForwardedPolicy(host=True, prefix=True).apply(PROXY, given) == Overrides(
        host=b"example.org:8443", root_path="/app"
    )


@pytest.mark.parametrize(
    "value",
    ["", "a b", "a/b", "user@a", "a\r\nb", "[::1", "a:b", "a:123456", "é", "a" * 300],
)
def test_a_host_that_cannot_be_is_ignored(value):
    given = [(b"x-forwarded-host", value.encode("latin-1"))]
    assert ForwardedPolicy(host=True).apply(PROXY, given) is None


@pytest.mark.parametrize("value", ["example.org", "[::1]:443", "127.0.0.1:80", "a_b"])
def test_a_host_may_have_a_port(value):
    changed = ForwardedPolicy(host=True).apply(PROXY, fields(x_forwarded_host=value))
    assert changed.host == value.encode()


@pytest.mark.parametrize(
    ("value", "root_path"),
    [
        (b"/app", "/app"),
        (b"/a/b/", "/a/b"),
        (b"/caf%C3%A9", "/caf\xe9"),
        (b"", None),
        (b"/", None),
        (b"app", None),
        (b"//evil.example", None),
        (b"/a?b", None),
        (b"/a#b", None),
        (b"/a b", None),
        (b"/%ff", None),
        (b"/%0a", None),
        (b"/\xc3\xa9", None),
    ],
)
def test_a_prefix_is_a_path(value, root_path):
    given = [(b"x-forwarded-prefix", value)]
    changed = ForwardedPolicy(prefix=True).apply(PROXY, given)
    assert (changed and changed.root_path) == root_path


# ---- Forwarded ----


def forwarded(value, trusted="127.0.0.1,10.0.0.0/8", **options):
    policy = ForwardedPolicy(trusted, forwarded=True, host=True, **options)
    return policy.apply(PROXY, [(b"forwarded", value)])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"for=1.2.3.4;proto=https", Overrides(("1.2.3.4", 0), "https")),
        (b'For="[2001:db8::7]:81"', Overrides(("2001:db8::7", 81))),
        (b"for=1.2.3.4:80 ; by=10.0.0.1", Overrides(("1.2.3.4", 80))),
        (b"proto=https;host=example.org", Overrides(None, "https", b"example.org")),
        (b'host="example.org:81"', Overrides(host=b"example.org:81")),
        (
            b'host=example.org:81;for="1.2.3.\\4"',
            Overrides(("1.2.3.4", 0), None, b"example.org:81"),
        ),
        (b"for=6.6.6.6, for=1.2.3.4, for=10.0.0.7", Overrides(("1.2.3.4", 0))),
        (
            b"for=6.6.6.6;proto=https, for=1.2.3.4;proto=http, for=10.0.0.7;proto=ftp",
            Overrides(("1.2.3.4", 0), "http"),
        ),
        (b'by="a, for=6.6.6.6";for=1.2.3.4', Overrides(("1.2.3.4", 0))),
        (b"for=6.6.6.6, for=unknown;proto=https", Overrides(None, "https")),
        (b"for=6.6.6.6, for=_hidden, for=10.0.0.7", None),
        (b'", for=1.2.3.4', Overrides(("1.2.3.4", 0))),
        (b'for="6.6.6.6, for=1.2.3.4', Overrides(("1.2.3.4", 0))),
        (b"rubbish, for=1.2.3.4", Overrides(("1.2.3.4", 0))),
        (b"for=6.6.6.6, rubbish, for=10.0.0.7", None),
        (b"for=1.2.3.4;for=6.6.6.6", None),
        (b"", None),
        (b",,;,", None),
        (b'"' * 60_000, None),
        (b"for=," * 10_000, None),
        (b"for=6.6.6.6, for=1.2.3.4, ", Overrides(("1.2.3.4", 0))),
    ],
)
def test_forwarded_is_read_from_its_end(value, expected):
    assert forwarded(value) == expected


def test_one_family_of_fields_is_read_and_not_the_other():
    given = [
        *fields(x_forwarded_for="6.6.6.6", x_forwarded_proto="https"),
        *fields(x_forwarded_host="evil.example"),
        *fields(forwarded="for=1.2.3.4"),
    ]
    policy = ForwardedPolicy(forwarded=True, host=True)
    assert policy.apply(PROXY, given) == Overrides(("1.2.3.4", 0))
    assert ForwardedPolicy().apply(PROXY, given) == Overrides(("6.6.6.6", 0), "https")


# ---- Scopes ----


FIELDS = [
    (b"x-forwarded-for", b"6.6.6.6, 192.0.2.1"),
    (b"x-forwarded-proto", b"ftp"),
    (b"x-forwarded-host", b"example.org"),
    (b"x-forwarded-prefix", b"/caf%C3%A9"),
]


async def scope_of(version, policy, fields, **options):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with serving(version, app, forwarded=policy, **options) as peer:
        assert (await peer.fetch(b"/a%20b?c", headers=fields)).status == 204
        assert (await peer.fetch(b"/a%20b?c")).status == 204
        port = peer.port
    first, second = scopes
    assert second["client"][0] == "127.0.0.1"  # nothing is left of the first request
    assert dict(second["headers"])[b"host"] == b"localhost:%d" % port
    assert second["root_path"] == options.get("root_path", "")
    return first


@everywhere
async def test_the_scope_has_what_a_trusted_proxy_says(version):
    policy = ForwardedPolicy(host=True, prefix=True)
    scope = await scope_of(version, policy, FIELDS, root_path="/in")
    assert scope["client"] == ("192.0.2.1", 0)
    assert scope["scheme"] == ("https" if version == "HTTP/3" else "http")
    assert scope["headers"][0] == (b"host", b"example.org")
    assert [name for name, _ in scope["headers"]].count(b"host") == 1
    assert scope["root_path"] == "/caf\xe9/in"
    assert scope["path"] == "/caf\xe9/in/a b"
    assert scope["raw_path"] == b"/caf%C3%A9/in/a%20b"


@everywhere
async def test_a_prefix_is_not_in_a_path_that_has_it_already(version):
    policy = ForwardedPolicy(prefix=True)
    scope = await scope_of(version, policy, FIELDS, root_path_mode="set")
    assert (scope["root_path"], scope["path"]) == ("/caf\xe9", "/a b")


@everywhere
async def test_the_scope_has_nothing_of_what_a_stranger_says(version):
    policy = ForwardedPolicy("192.0.2.1", host=True, prefix=True)
    scope = await scope_of(version, policy, FIELDS)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["headers"][0][1].startswith(b"localhost:")
    assert (scope["root_path"], scope["path"]) == ("", "/a b")


@asgi_websockets.everywhere
async def test_the_scheme_of_a_websocket_is_one_of_websockets(version):
    app = asgi_websockets.App()
    async with asgi_websockets.serving(
        version, app, forwarded=ForwardedPolicy()
    ) as peer:
        fields = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https")]
        socket = await asgi_websockets.accepted(peer, b"/", fields)
        await socket.leave()
    (scope,) = app.scopes
    assert (scope["scheme"], scope["client"]) == ("wss", ("192.0.2.1", 0))


def test_a_policy_is_one():
    with pytest.raises(TypeError, match="forwarded must be a ForwardedPolicy"):
        ASGIOptions(forwarded="*")
