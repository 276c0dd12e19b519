"""Header lists as one browser page and one API client make them.

They are written for these measurements: the fields, their order and their
lengths are what browsers, API clients and servers send today; hosts, tokens
and values are invented.  ``REQUESTS[i]`` is answered by ``RESPONSES[i]``.
"""

from __future__ import annotations

HeaderList = list[tuple[bytes, bytes]]

_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Safari/537.36"
)
_BRANDS = '"Chromium";v="141", "Not?A_Brand";v="8"'
_SESSION = (
    "session=5f1c9a7e0b6d4c22a9c1f0e3; theme=dark; region=eu-west; "
    "consent=1.0.1.0; visit=1763712000"
)
# (path, kind, bytes) of what one page loads.
_PAGE = [
    ("/", "document", 18422),
    ("/static/css/base.5d1e0c.css", "style", 23110),
    ("/static/css/shop.91ab3f.css", "style", 8734),
    ("/static/js/runtime.0ff1ce.js", "script", 2210),
    ("/static/js/vendor.77c0de.js", "script", 183220),
    ("/static/js/main.ab54a9.js", "script", 64103),
    ("/static/fonts/text-regular.woff2", "font", 48214),
    ("/static/fonts/text-bold.woff2", "font", 50342),
    ("/favicon.ico", "image", 1150),
    ("/search?q=garden+chair&page=1", "document", 22981),
    ("/search?q=garden+chair&page=2", "document", 23107),
    ("/item/48213/folding-chair-oak", "document", 31246),
]
_PAGE += [
    (f"/images/item/{48200 + 7 * i}-m.webp", "image", 9000 + 131 * i) for i in range(28)
]
_PAGE += [(f"/fragments/teaser/{i}", "fetch", 1200 + 17 * i) for i in range(10)]

_ACCEPT = {
    "document": "text/html,application/xhtml+xml,application/xml;q=0.9,"
    "image/avif,image/webp,image/apng,*/*;q=0.8",
    "style": "text/css,*/*;q=0.1",
    "script": "*/*",
    "font": "*/*",
    "image": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "fetch": "application/json, text/plain, */*",
}
_TYPE = {
    "document": "text/html; charset=utf-8",
    "style": "text/css; charset=utf-8",
    "script": "text/javascript; charset=utf-8",
    "font": "font/woff2",
    "image": "image/webp",
    "fetch": "application/json",
}


def _encode(fields: list[tuple[str, str]]) -> HeaderList:
    # Each list has objects of its own, as parsed or built headers do.
    return [(name.encode(), value.encode()) for name, value in fields]


def _date(second: int) -> str:
    return f"Fri, 21 Nov 2025 08:{second // 60:02}:{second % 60:02} GMT"


def _browser(path: str, kind: str) -> HeaderList:
    navigate = kind == "document"
    fields = [
        (":method", "GET"),
        (":authority", "shop.example.com"),
        (":scheme", "https"),
        (":path", path),
        ("sec-ch-ua", _BRANDS),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", '"Linux"'),
    ]
    if navigate:
        fields.append(("upgrade-insecure-requests", "1"))
    if kind == "font":
        fields.append(("origin", "https://shop.example.com"))
    fields += [
        ("user-agent", _AGENT),
        ("accept", _ACCEPT[kind]),
        ("sec-fetch-site", "none" if path == "/" else "same-origin"),
        ("sec-fetch-mode", "navigate" if navigate else "no-cors"),
        ("sec-fetch-dest", "empty" if kind == "fetch" else kind),
    ]
    if path != "/":
        fields.append(("referer", "https://shop.example.com/"))
    fields += [
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
        ("cookie", _SESSION),
        ("priority", "u=0, i" if navigate else "u=2"),
    ]
    return _encode(fields)


def _page_response(index: int, path: str, kind: str, length: int) -> HeaderList:
    fields = [
        (":status", "200"),
        ("date", _date(index // 8)),
        ("content-type", _TYPE[kind]),
        ("content-length", str(length)),
        ("server", "nginx"),
        ("vary", "accept-encoding"),
    ]
    if kind in ("document", "fetch"):
        fields += [
            ("cache-control", "private, no-store"),
            ("x-request-id", f"{0x9E3779B97F4A7C15 * (index + 1) % 2**64:016x}"),
            ("content-security-policy", "default-src 'self'; object-src 'none'"),
        ]
    else:
        fields += [
            ("cache-control", "public, max-age=31536000, immutable"),
            ("etag", f'"{length:x}-{48213 + index:x}"'),
            ("last-modified", "Mon, 03 Nov 2025 10:15:00 GMT"),
            ("accept-ranges", "bytes"),
        ]
    if path == "/":
        fields.append(("set-cookie", "visit=1763712000; Path=/; Secure; HttpOnly"))
    fields += [
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("alt-svc", 'h3=":443"; ma=86400'),
    ]
    return _encode(fields)


def _api(index: int, method: str, path: str, length: int) -> HeaderList:
    fields = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "api.example.com"),
        (":path", path),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("user-agent", "orders-sync/3.4 (python 3.12)"),
        ("authorization", "Bearer " + "k7Qd0Zr4" * 6),
        (
            "traceparent",
            f"00-{0xD1B54A32D192ED03 * (index + 1) % 2**64:032x}-{index:016x}-01",
        ),
    ]
    if length:
        fields += [
            ("content-type", "application/json"),
            ("content-length", str(length)),
        ]
    return _encode(fields)


def _api_response(index: int, status: int, length: int) -> HeaderList:
    return _encode(
        [
            (":status", str(status)),
            ("date", _date(60 + index // 4)),
            ("content-type", "application/json"),
            ("content-length", str(length)),
            ("cache-control", "no-cache"),
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", str(4999 - index)),
            ("x-request-id", f"{0xBF58476D1CE4E5B9 * (index + 1) % 2**64:016x}"),
            ("server", "envoy"),
            ("x-envoy-upstream-service-time", str(3 + index % 9)),
        ]
    )


REQUESTS: list[HeaderList] = [_browser(path, kind) for path, kind, _ in _PAGE]
RESPONSES: list[HeaderList] = [_page_response(i, *item) for i, item in enumerate(_PAGE)]
for _i in range(50):
    _post = _i % 5 == 4
    REQUESTS.append(
        _api(
            _i,
            "POST" if _post else "GET",
            "/v2/orders" if _post else f"/v2/orders/{90210 + 13 * _i}?expand=lines",
            412 + _i if _post else 0,
        )
    )
    RESPONSES.append(_api_response(_i, 201 if _post else 200, 880 + 11 * _i))
