# cython: nonecheck=True
"""The scopes of requests (ASGI 3.0, HTTP & WebSocket 2.5): every key, for each version.

What is the same for all requests of a connection is kept as a template.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy

from nghttp2py.exchange cimport HTTPConnection
from nghttp2py.h2.convert cimport takes_trailers
from nghttp2py.h2.events cimport RequestReceived

import sys
from urllib.parse import quote, unquote_to_bytes

from nghttp2py.asgi.tls import tls_extension

# What the fields of a request have.
cdef enum:
    TAKES_TRAILERS = 1  # ``te`` with trailers
    FORWARDED = 2       # a field with what a proxy knows of its client

# The targets that are kept split: so many, each of at most so many octets.
cdef Py_ssize_t TARGETS = 512
cdef Py_ssize_t LONGEST = 256

cdef dict METHODS = {
    name.encode(): sys.intern(name)
    for name in (
        *("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"),
        "CONNECT",
    )
}

cdef str HTTP = sys.intern("http")
cdef str WEBSOCKET = sys.intern("websocket")
# What http scopes announce if nothing is switched off; the rest depends on the request.
cdef tuple ALWAYS = (
    "http.response.pathsend",
    "http.response.zerocopysend",
)
cdef tuple INFORMATIONAL = (
    "http.response.early_hint",
    "http.response.informational",
)


cdef class ScopeMaker:
    """Makes the scopes of an application's requests by its ``ASGIOptions``."""

    def __init__(self, options):
        self._options = options
        self._state = options.state
        self._forwarded = options.forwarded
        self._targets = {}
        self._root = ""
        self._raw_root = b""
        if options.root_path_mode == "prepend":
            self._root = options.root_path
            self._raw_root = quote(options.root_path).encode()

    cdef ConnectionScope connection_scope(self, HTTPConnection http):
        """Return what is kept for a connection."""
        cdef ConnectionScope kept

        if isinstance(http.application_data, ConnectionScope):
            return <ConnectionScope>http.application_data
        kept = ConnectionScope(self._options, http)
        http.application_data = kept
        return kept

    cdef tuple _split(self, bytes target):
        """Return (path, raw_path, query_string); None if the path is not UTF-8."""
        cdef tuple parts = self._targets.get(target)

        if parts is not None:
            return parts
        raw, _, query = target.partition(b"?")
        try:
            path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
        except UnicodeDecodeError:
            return None
        if path != "*":
            path = self._root + path
            raw = self._raw_root + raw
        parts = path, raw, query
        if PyBytes_GET_SIZE(target) <= LONGEST:
            if len(self._targets) >= TARGETS:
                self._targets.clear()
            self._targets[target] = parts
        return parts

    cdef dict make(self, str kind, HTTPConnection http, RequestReceived request):
        """Return the scope of a request, None if its path is not UTF-8.

        ``kind`` is "http" or "websocket".
        """
        cdef ConnectionScope kept = self.connection_scope(http)
        cdef tuple parts = self._split(request.target)
        cdef dict scope
        cdef int found = 0

        if parts is None:
            return None
        scope = PyDict_Copy(kept.template)
        # Middleware changes scopes, and must not change that of the next request.
        scope["asgi"] = PyDict_Copy(<dict>scope["asgi"])
        scope["http_version"] = request.http_version
        scope["path"], scope["raw_path"], scope["query_string"] = parts
        scope["headers"] = take_headers(kept, request, &found)
        if not kept.fixed:
            scope["client"] = to_client(http.get_extra_info("peername"))
        if self._state is not None:
            scope["state"] = PyDict_Copy(self._state)
        if kind is HTTP:
            method = METHODS.get(request.method)
            if method is None:
                method = request.method.decode("latin-1").upper()
            scope["method"] = method
            scope["extensions"] = extensions = PyDict_Copy(kept.extensions)
            for name in kept.extensions:
                extensions[name] = {}
            if request.http_version == "1.0":
                for name in INFORMATIONAL:
                    extensions.pop(name, None)
            if found & TAKES_TRAILERS and kept.trailers:
                extensions["http.response.trailers"] = {}
            # Over HTTP/3, MAX_PUSH_ID may come at any time, and be used up.
            if kept.push and (kept.fixed or http.push_enabled()):
                extensions["http.response.push"] = {}
        else:
            scope["type"] = WEBSOCKET
            scope["scheme"] = "wss" if http.secure else "ws"
            scope["extensions"] = extensions = {}
            if "websocket.http.response" not in self._options.disabled_extensions:
                extensions["websocket.http.response"] = {}
            scope["subprotocols"] = find_subprotocols(<list>scope["headers"])
        if kept.tls is not None:
            extensions["tls"] = {
                key: list(value) if isinstance(value, list) else value
                for key, value in kept.tls.items()
            }
        forwarded = self._forwarded
        if found & FORWARDED and forwarded is not None:
            if not kept.fixed:
                kept.trusted = is_trusted(forwarded, http)
            if kept.trusted:
                changes = forwarded.read(scope["headers"], websocket=kind is not HTTP)
                if changes is not None:
                    self._change(scope, changes)
        return scope

    cdef int _change(self, dict scope, changes) except -1:
        """Put into a scope what a trusted proxy says about its client."""
        cdef list headers = scope["headers"]
        cdef bint known

        if changes.client is not None:
            scope["client"] = changes.client
        if changes.scheme is not None:
            scope["scheme"] = changes.scheme
        if changes.host is not None:
            known = bool(headers) and headers[0][0] == b"host"
            headers[:known] = [(b"host", changes.host)]
        if changes.root_path is not None:
            # The proxy's prefix is before our own.
            scope["root_path"] = changes.root_path + scope["root_path"]
            if self._options.root_path_mode == "prepend" and scope["path"] != "*":
                raw = quote(changes.root_path).encode()
                scope["path"] = changes.root_path + scope["path"]
                scope["raw_path"] = raw + scope["raw_path"]
        return 0


cdef class ConnectionScope:
    """What the scopes of a connection's requests have in common."""

    def __init__(self, options, HTTPConnection http):
        cdef set disabled = set(options.disabled_extensions)

        self.fixed = http.version != "HTTP/3"  # QUIC's migrate
        self.template = {
            "type": HTTP,
            "asgi": {"version": "3.0", "spec_version": options.spec_version},
            "http_version": "",
            "server": to_server(http.get_extra_info("sockname")),
            "client": to_client(http.get_extra_info("peername")),
            "scheme": "https" if http.secure else "http",
            "root_path": options.root_path,
            "path": "",
            "raw_path": b"",
            "query_string": b"",
            "headers": None,
        }
        self.extensions = {
            name: True for name in (*ALWAYS, *INFORMATIONAL) if name not in disabled
        }
        # The client's SETTINGS come before its first request, but over HTTP/3.
        self.push = "http.response.push" not in disabled and (
            not self.fixed or http.push_enabled()
        )
        self.trailers = "http.response.trailers" not in disabled
        if http.secure and "tls" not in disabled:
            self.tls = tls_extension(http)
        if options.forwarded is not None:
            self.trusted = is_trusted(options.forwarded, http)


cdef bint is_trusted(forwarded, HTTPConnection http) except -1:
    """Return whether the fields of a proxy are heeded from a connection's peer."""
    return forwarded.trusts(
        http.get_extra_info("peername"), http.get_extra_info("sockname")
    )


cdef object to_client(address):
    """Return the client's (host, port); None for a Unix socket's."""
    if isinstance(address, tuple) and len(<tuple>address) >= 2:
        return address[0], int(address[1])
    return None


cdef object to_server(address):
    """Return the server's (host, port), or (path, None) for a Unix socket."""
    if isinstance(address, tuple) and len(<tuple>address) >= 2:
        return address[0], int(address[1])
    if isinstance(address, bytes):
        address = address.decode("utf-8", "surrogateescape")
    if isinstance(address, str) and address:
        return address, None
    return None


cdef list take_headers(
    ConnectionScope kept, RequestReceived request, int *found
):
    """Return the fields without pseudo-header fields: a list of pairs, ``host`` first.

    ``:authority`` replaces the host.  Several cookie fields are joined, because Django
    and Starlette read one (RFC 9113, 8.2.3).  ``found`` gets what the rest of the scope
    depends on.
    """
    cdef list headers = []
    cdef list cookies = None
    cdef bytes name
    cdef bytes authority = request.authority
    cdef const char *text
    cdef Py_ssize_t at = -1
    cdef Py_ssize_t size

    if authority is not None:
        if kept.authority is None or kept.authority != authority:
            kept.authority = authority
            kept.host = (b"host", authority)
        headers.append(kept.host)
    for pair in request.fields:
        name = <bytes?>pair[0]
        size = PyBytes_GET_SIZE(name)
        text = PyBytes_AS_STRING(name)
        if size and text[0] == c":":
            continue
        if size == 4 and name == b"host":
            if authority is None:
                headers.insert(0, (name, pair[1]))
                at += at >= 0
            continue
        if size == 6 and name == b"cookie":
            if at >= 0:
                if cookies is None:
                    cookies = [(<tuple>headers[at])[1]]
                cookies.append(pair[1])
                continue
            at = len(headers)
        elif size == 2 and name == b"te":
            if takes_trailers(<bytes?>pair[1]):
                found[0] |= TAKES_TRAILERS
        elif (
            size >= 9
            and (text[0] == c"x" or text[0] == c"f")
            and (name == b"forwarded" or name.startswith(b"x-forwarded-"))
        ):
            found[0] |= FORWARDED
        # HPACK's never-indexed fields, such as cookies, are of a subclass.
        headers.append(pair if type(pair) is tuple and len(pair) == 2 else pair[:2])
    if cookies is not None:
        headers[at] = (b"cookie", b"; ".join(cookies))
    return headers


cdef list find_subprotocols(list headers):
    """Return the subprotocols that a client offers, in its order (RFC 6455, 11.3.4)."""
    cdef list found = []

    for name, value in headers:
        if name == b"sec-websocket-protocol":
            for item in value.decode("latin-1").split(","):
                item = item.strip()
                if item:
                    found.append(item)
    return found
