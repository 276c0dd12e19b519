"""The configuration of the server of ASGI applications.

``Config`` has every option once, with its default and its help.  The command line, the
configuration file, the environment and ``run()`` read them from it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from nghttp2py.access_formats import compile_format
from nghttp2py.arguments import check_int, describe
from nghttp2py.asgi import lifespan as lifespan_module
from nghttp2py.asgi.binds import Bind, to_bind
from nghttp2py.asgi.forwarded import DEFAULT_TRUSTED, ForwardedPolicy
from nghttp2py.asgi.kinds import (
    CertReqs,
    Choice,
    Files,
    Flag,
    Headers,
    Integer,
    Kind,
    LogConfig,
    LogLevel,
    Option,
    Seconds,
    Text,
    Texts,
    option,
    options_of,
)
from nghttp2py.asgi.loading import INTERFACES, ASGIApplication, load_application
from nghttp2py.asgi.logs import LOGGING_CONFIG, configure_logging
from nghttp2py.asgi.metrics import import_prometheus
from nghttp2py.asgi.shared import make_load_balancing, read_secrets
from nghttp2py.asgi.wsgi import THREADS
from nghttp2py.asyncio.event_loop import LOOPS
from nghttp2py.asyncio.listener import BACKLOG
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ConfigurationError
from nghttp2py.h2 import H2Configuration
from nghttp2py.trusted import TrustedAddresses
from nghttp2py.websocket import WebSocketOptions
from nghttp2py.workers.privileges import find_identity
from nghttp2py.workers.process import Limits
from nghttp2py.workers.reload import DELAY, EXCLUDES, INCLUDES
from nghttp2py.workers.supervisor import MOST_WORKERS

if TYPE_CHECKING:
    # Imported when it is first used: not every build has QUIC.
    from nghttp2py.quic.load_balancing import QuicLB

__all__ = [
    "OPTIONS",
    "PREFIX",
    "Config",
    "find_binds",
    "find_insecure_binds",
    "find_unknown_variables",
    "load_config",
    "make_config",
    "read_env_file",
    "suggest",
]

_TIMEOUTS = Timeouts()
_WEBSOCKET = WebSocketOptions()
_H2 = H2Configuration()

#: What begins the names of environment variables that are options.
PREFIX = "NGHTTP2PY_"
# Variables with this prefix that are no options: of the command, of other commands, and
# of the build and its tests.
_OTHER_VARIABLES = {
    *("APP", "CONFIG", "ENV_FILE"),
    "SERVE_AUTH",
    *("DEBUG", "SEEDS", "VENDOR", "WERROR"),
}

#: The values of ``ssl_min_version``.
MIN_VERSIONS = {
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}

_FORWARDED_FIELDS = ("for", "proto", "host", "prefix", "forwarded")


class TrustedProxies(Text):
    """Addresses of proxies, as ``TrustedAddresses`` takes them."""

    def __init__(self) -> None:
        super().__init__(optional=True, metavar="ADDRESSES")

    def check(self, name: str, value: Any) -> Any:
        """Return addresses as one text; check each."""
        if isinstance(value, list | tuple):
            value = ",".join(value)
        value = super().check(name, value)
        if value is not None:
            try:
                TrustedAddresses(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value


class ForwardedFields(Texts):
    """The fields of proxies that are read."""

    def check_one(self, name: str, value: Any) -> Any:
        """Return the name of a field."""
        if value not in _FORWARDED_FIELDS:
            raise ValueError(
                f"{name} must be of {', '.join(_FORWARDED_FIELDS)}, not "
                f"{describe(value)}"
            )
        return value


@dataclass(frozen=True)
class Permissions(Kind):
    """Permissions of a file; a text has octal digits."""

    optional: bool = False
    metavar = "OCTAL"

    def check(self, name: str, value: Any) -> Any:
        """Return the permissions as a number."""
        if value is None and self.optional:
            return None
        if isinstance(value, str):
            return self.convert(name, value)
        check_int(name, value, 0, 0o777)
        return value

    def convert(self, name: str, text: str) -> Any:
        """Read octal digits."""
        if not re.fullmatch("(0o?)?[0-7]{1,3}", text):
            raise ValueError(f"{name} must be octal digits, such as 660, not {text!r}")
        return int(text.removeprefix("0o"), 8)

    def show(self, value: Any) -> str:
        """Return octal digits."""
        return "none" if value is None else f"{value:o}"


class Account(Text):
    """The name or the number of a user or a group."""

    def __init__(self) -> None:
        super().__init__(optional=True, empty=False, metavar="NAME")

    def check(self, name: str, value: Any) -> Any:
        """Return a name, or a number as a text."""
        if isinstance(value, int) and not isinstance(value, bool):
            check_int(name, value, 0)
            value = str(value)
        return super().check(name, value)


class AccessLogFormat(Text):
    """A format of ``nghttp2py.access_formats``."""

    def __init__(self) -> None:
        super().__init__(optional=True, empty=False, metavar="FORMAT")

    def check(self, name: str, value: Any) -> Any:
        """Return a format; compile it first."""
        value = super().check(name, value)
        if value is not None and value != "json":
            try:
                compile_format(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return value


# Names of other servers, and what is to be used instead.  An option is in braces.
_ELSEWHERE = {
    "access_log_format": "use {access_logformat}",
    "accesslog": "use {access_log}",
    "alt_svc_headers": "use {alt_svc}, or {headers}",
    "ca_certs": "use {ssl_ca_certs}",
    "certfile": "use {ssl_certfile}",
    "ciphers": "use {ssl_ciphers}",
    "graceful_timeout": "use {timeout_graceful_shutdown}",
    "http": "every version is served; {http1} and {http3} switch two of them off",
    "keep_alive_timeout": "use {timeout_keep_alive}",
    "keyfile": "use {ssl_keyfile}",
    "keyfile_password": "use {ssl_keyfile_password}",
    "logconfig": "use {log_config}",
    "loglevel": "use {log_level}",
    "max_requests": "use {limit_max_requests}",
    "max_requests_jitter": "use {limit_max_requests_jitter}",
    "quic_bind": "HTTP/3 has the port of TLS, on UDP",
    "read_timeout": "use {timeout_body}",
    "shutdown_timeout": "use {timeout_lifespan_shutdown}",
    "ssl_handshake_timeout": "use {timeout_handshake}",
    "startup_timeout": "use {timeout_lifespan_startup}",
    "verify_mode": "use {ssl_cert_reqs}",
    "websocket_max_message_size": "use {ws_max_size}",
    "websocket_ping_interval": "use {ws_ping_interval}",
    "worker_class": "use {loop}",
    "ws": "every version has WebSockets",
}


# The options that are one address, instead of bind.
_ADDRESS = ("host", "port", "uds", "fd")

# Options of uvicorn that mean nothing here at these values.
_NEUTRAL = {
    "http": ("auto",),
    "ws": ("auto",),
}


@dataclass
class Config:
    """The application, and the options of its server.

    Names are uvicorn's where uvicorn has the option.  Assigning to an attribute checks
    the value: ``TypeError`` and ``ValueError`` name the option and its rule.  ``check``
    raises for options that exclude each other; the server calls it.
    """

    #: The application, or its name: "module:attribute".
    app: Any = None

    _: KW_ONLY

    # ---- Application ----

    factory: bool = option(
        False,
        Flag(),
        "The name is that of a function that returns the application.",
        group="Application",
    )
    app_dir: str | None = option(
        None,
        Text(optional=True, metavar="DIRECTORY"),
        "Directory in which the module is looked for first.",
        group="Application",
        hint="of the command: the current one",
    )
    interface: str = option(
        "auto",
        Choice(*INTERFACES),
        "Interface of the application; auto reads it from its arguments.",
        group="Application",
    )
    wsgi_threads: int = option(
        THREADS,
        Integer(1),
        "Threads of a WSGI application: requests that run at once; more wait.",
        group="Application",
    )
    lifespan: str = option(
        "auto",
        Choice(*lifespan_module.MODES),
        "Whether the application is started and stopped by ASGI's lifespan.",
        group="Application",
    )
    root_path: str = option(
        "",
        Text(metavar="PATH"),
        "Path below which the application is mounted: root_path of the scope.",
        group="Application",
    )
    root_path_mode: str = option(
        "prepend",
        Choice("prepend", "set"),
        "prepend: path is that of the request after root_path, for a proxy that has "
        "stripped it, as in uvicorn; set: path stays as it came.",
        group="Application",
    )
    spec_version: str = option(
        "2.5",
        Choice("2.5", "2.3"),
        "2.5: after a disconnect send() raises an OSError, and the application is "
        "cancelled; 2.3: neither.",
        group="Application",
    )
    reset_contextvars: bool = option(
        False,
        Flag(),
        "Requests do not inherit the context variables of the lifespan.",
        group="Application",
    )
    loop: str = option(
        "auto",
        Choice(*LOOPS),
        "Event loop; auto is uvloop if that is installed.",
        group="Application",
    )
    workers: int | None = option(
        None,
        Integer(1, MOST_WORKERS, optional=True),
        "Processes that serve.",
        group="Workers",
        hint="$WEB_CONCURRENCY, or 1",
    )
    timeout_worker_startup: float = option(
        60.0,
        Seconds(),
        "For a worker to import the application, beside its start.",
        group="Workers",
    )
    timeout_worker_healthcheck: float | None = option(
        Limits.silence,
        Seconds(optional=True),
        "For a worker whose event loop is blocked; then it is killed and replaced.",
        group="Workers",
    )

    # ---- Reload ----

    reload: bool = option(
        False,
        Flag(),
        "Start the application again when its files change, for development.",
        group="Reload",
    )
    reload_dirs: Sequence[str] = option(
        [],
        Texts(metavar="DIRECTORY"),
        "Directory to watch.",
        group="Reload",
        flags=("reload-dir",),
        hint="that of the application",
    )
    reload_includes: Sequence[str] = option(
        [],
        Texts(metavar="PATTERN"),
        "Pattern of files to watch, beside " + ", ".join(INCLUDES) + ".",
        group="Reload",
        flags=("reload-include",),
    )
    reload_excludes: Sequence[str] = option(
        [],
        Texts(metavar="PATTERN"),
        "Pattern of files and directories not to watch, beside "
        + ", ".join(EXCLUDES)
        + ".",
        group="Reload",
        flags=("reload-exclude",),
    )
    reload_delay: float = option(
        DELAY,
        Seconds(),
        "Between two looks at the files, without the package watchfiles.",
        group="Reload",
    )
    seed_file: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="FILE"),
        "Random bytes, at least 32, from which the keys of tokens and session tickets "
        "are derived, for several machines.",
        group="Workers",
        hint="new keys at each start",
    )
    quic_bpf: bool = option(
        True,
        Flag(),
        "Have the kernel choose the worker by QUIC's connection id.",
        group="Workers",
    )
    quic_lb_server_id: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="HEX"),
        "Number of this machine in QUIC's connection ids, for a load balancer that "
        "reads them (QUIC-LB).",
        group="Workers",
    )
    quic_lb_config_id: int = option(
        0,
        Integer(0, 6),
        "Number of the load balancer's configuration.",
        group="Workers",
    )
    quic_lb_nonce_length: int = option(
        10,
        Integer(8, 17),
        "Length of the rest of the connection id.",
        group="Workers",
    )
    quic_lb_key_file: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="FILE"),
        "Key of 32 hexadecimal digits by which the load balancer decrypts connection "
        "ids.",
        group="Workers",
        hint="they are not encrypted",
    )

    # ---- Listening ----

    host: str = option(
        "127.0.0.1",
        Text(empty=False, metavar="HOST"),
        "Address to listen on; :: is all of IPv6 and IPv4.",
        group="Listening",
    )
    port: int = option(
        8000,
        Integer(0, 65535),
        "Port; 0 takes any that is free.",
        group="Listening",
    )
    uds: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="PATH"),
        "Unix socket to listen on, instead of a port.",
        group="Listening",
    )
    uds_permissions: int = option(
        0o666,
        Permissions(),
        "Permissions of Unix sockets, in octal digits.",
        group="Listening",
    )
    fd: int | None = option(
        None,
        Integer(0, optional=True),
        "Descriptor of a bound socket to listen on, instead of a port.",
        group="Listening",
    )
    bind: Sequence[str] = option(
        [],
        Texts(metavar="ADDRESS"),
        "Address to listen on, instead of those above: host:port, unix:path, "
        "fd://number, or systemd:name for sockets of its unit.",
        group="Listening",
        flags=("b", "bind"),
    )
    insecure_bind: Sequence[str] = option(
        [],
        Texts(metavar="ADDRESS"),
        "Address to listen on in the clear, beside those with TLS.",
        group="Listening",
    )
    backlog: int = option(
        BACKLOG,
        Integer(0, (1 << 31) - 1),
        "Connections that the kernel queues until they are accepted.",
        group="Listening",
    )
    reuse_port: bool = option(
        False,
        Flag(),
        "Set SO_REUSEPORT, so that each worker has its own queue of connections.",
        group="Listening",
    )
    http1: bool = option(
        True,
        Flag(),
        "Serve HTTP/1.1 beside HTTP/2.",
        group="Listening",
    )
    http3: bool | None = option(
        None,
        Flag(optional=True),
        "Serve HTTP/3 on the port of TLS, and announce it by alt-svc.",
        group="Listening",
        hint="on, with TLS on a port",
    )

    # ---- Process ----

    user: str | None = option(
        None,
        Account(),
        "User to become when the sockets and the keys are open.",
        group="Process",
        flags=("u", "user"),
    )
    group: str | None = option(
        None,
        Account(),
        "Group to become.",
        group="Process",
        flags=("g", "group"),
        hint="that of --user",
    )
    umask: int | None = option(
        None,
        Permissions(optional=True),
        "Permissions that files of the application do not get.",
        group="Process",
        flags=("m", "umask"),
        hint="that of the shell",
    )
    pid: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="FILE"),
        "File for the number of the process; the start fails if it names one that "
        "runs.",
        group="Process",
    )

    # ---- TLS ----

    ssl_certfile: Sequence[str] = option(
        [],
        Files(),
        "Certificate chain, in PEM: serve HTTPS.  Of several, a client gets the first "
        "that has the name for which it asks, or else the first.",
        group="TLS",
    )
    ssl_keyfile: Sequence[str] = option(
        [],
        Files(),
        "Private key of the certificate, in PEM; of several, in the same order.",
        group="TLS",
        hint="in the certificate's file",
    )
    ssl_keyfile_password: str | None = option(
        None,
        Text(optional=True),
        "Password of encrypted keys.",
        group="TLS",
        secret=True,
    )
    ssl_ca_certs: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="FILE"),
        "Authorities of client certificates, in PEM.",
        group="TLS",
        hint="those of the system",
    )
    ssl_cert_reqs: int = option(
        CertReqs().check("ssl_cert_reqs", 0),
        CertReqs(),
        "Whether clients must have a certificate.",
        group="TLS",
    )
    ssl_min_version: str = option(
        "TLSv1.2",
        Choice(*MIN_VERSIONS),
        "Lowest version of TLS over TCP; QUIC has TLS 1.3.",
        group="TLS",
    )
    ssl_ciphers: str | None = option(
        None,
        Text(optional=True, empty=False),
        "Cipher suites of TLS 1.2 over TCP, as OpenSSL names them.",
        group="TLS",
        hint="those of Python",
    )

    # ---- Proxies ----

    proxy_headers: bool = option(
        True,
        Flag(),
        "Read the client's address and scheme from the fields of trusted proxies.",
        group="Proxies",
    )
    forwarded_allow_ips: str | None = option(
        None,
        TrustedProxies(),
        "Trusted proxies: addresses, networks, paths of Unix sockets, or *.",
        group="Proxies",
        hint="$FORWARDED_ALLOW_IPS, or this machine",
    )
    forwarded_fields: Sequence[str] = option(
        ["for", "proto"],
        ForwardedFields(),
        "Fields to read: for, proto, host and prefix of X-Forwarded-*, or forwarded "
        "(RFC 7239), with or without host.",
        group="Proxies",
    )

    proxy_protocol: str = option(
        "off",
        Choice("off", "v1", "v2", "auto"),
        "Connections begin with a header of the PROXY protocol, of this version.",
        group="Proxies",
    )
    proxy_allow_from: str | None = option(
        None,
        TrustedProxies(),
        "Proxies that send such headers: addresses, networks, paths of Unix sockets, "
        "or *.",
        group="Proxies",
        hint="every peer",
    )

    # ---- Limits ----

    limit_concurrency: int | None = option(
        None,
        Integer(1, optional=True),
        "Requests that are served at once; more are answered with 503.",
        group="Limits",
    )
    limit_connections: int | None = option(
        None,
        Integer(1, optional=True),
        "Connections that are open at once, with TLS and in the clear each; more wait "
        "in the kernel.",
        group="Limits",
    )
    limit_max_requests: int | None = option(
        None,
        Integer(1, optional=True),
        "Requests after which a worker is replaced, or a single process ends.",
        group="Limits",
    )
    limit_max_requests_jitter: int = option(
        0,
        Integer(0),
        "Requests, at most, that are added to this number at random for each process.",
        group="Limits",
    )
    max_request_body_size: int | None = option(
        None,
        Integer(0, optional=True),
        "Bytes of a request's body; more are answered with 413.",
        group="Limits",
    )
    h2_max_concurrent_streams: int = option(
        _H2.max_concurrent_streams,
        Integer(1, (1 << 32) - 1),
        "Requests that a connection may have open, over HTTP/2.",
        group="Limits",
    )

    # ---- Time limits ----

    timeout_handshake: float = option(
        _TIMEOUTS.handshake,
        Seconds(),
        "For the handshake of TLS or QUIC.",
        group="Time limits",
    )
    timeout_request_head: float = option(
        _TIMEOUTS.headers,
        Seconds(),
        "For a header section, from its first byte.",
        group="Time limits",
    )
    timeout_body: float | None = option(
        _TIMEOUTS.body,
        Seconds(optional=True),
        "For progress of a request's body.",
        group="Time limits",
    )
    timeout_response_stall: float | None = option(
        _TIMEOUTS.response,
        Seconds(optional=True),
        "For a client that takes nothing of a response.",
        group="Time limits",
    )
    timeout_keep_alive: float | None = option(
        75.0,
        Seconds(optional=True),
        "For a connection without a request.",
        group="Time limits",
    )
    timeout_graceful_shutdown: float = option(
        30.0,
        Seconds(zero=True),
        "For requests to end when the server stops.",
        group="Time limits",
    )
    timeout_disconnect_grace: float = option(
        3.0,
        Seconds(zero=True),
        "For the application to end after its client has gone; then it is cancelled.",
        group="Time limits",
    )
    timeout_lifespan_startup: float | None = option(
        lifespan_module.STARTUP_TIMEOUT,
        Seconds(optional=True),
        "For the application to start.",
        group="Time limits",
    )
    timeout_lifespan_shutdown: float | None = option(
        lifespan_module.SHUTDOWN_TIMEOUT,
        Seconds(optional=True),
        "For the application to stop.",
        group="Time limits",
    )

    # ---- WebSocket ----

    ws_max_size: int = option(
        _WEBSOCKET.max_message_size,
        Integer(1),
        "Bytes of a message, after it was inflated.",
        group="WebSocket",
    )
    ws_max_queue: int = option(
        _WEBSOCKET.max_queue,
        Integer(1),
        "Messages that wait for the application before the client must wait.",
        group="WebSocket",
    )
    ws_ping_interval: float | None = option(
        _WEBSOCKET.ping_interval,
        Seconds(optional=True),
        "Between the server's pings.",
        group="WebSocket",
    )
    ws_ping_timeout: float | None = option(
        _WEBSOCKET.ping_timeout,
        Seconds(optional=True),
        "For the answer to a ping; then the WebSocket is closed.",
        group="WebSocket",
    )
    ws_per_message_deflate: bool = option(
        _WEBSOCKET.per_message_deflate,
        Flag(),
        "Compress messages if the client offers it.",
        group="WebSocket",
    )

    # ---- Responses ----

    health_check_path: str | None = option(
        None,
        Text(optional=True, empty=False, metavar="PATH"),
        "Path that is answered with 200 without the application.",
        group="Responses",
    )

    server_header: bool = option(
        True, Flag(), "Add the field server.", group="Responses"
    )
    date_header: bool = option(True, Flag(), "Add the field date.", group="Responses")
    headers: Sequence[tuple[str, str]] = option(
        [],
        Headers(),
        "Field to add to each response.",
        group="Responses",
        flags=("header",),
    )

    # ---- Metrics ----

    metrics_port: int | None = option(
        None,
        Integer(0, 65535, optional=True),
        "Port at which Prometheus reads metrics, as /metrics.",
        group="Metrics",
    )
    metrics_host: str = option(
        "127.0.0.1",
        Text(empty=False, metavar="HOST"),
        "Address of this port.",
        group="Metrics",
    )

    # ---- Logging ----

    access_log: bool = option(
        True, Flag(), "Log each request and its response.", group="Logging"
    )
    access_logformat: str | None = option(
        None,
        AccessLogFormat(),
        "Format of these lines: gunicorn's atoms, or json.",
        group="Logging",
        hint="the common log format",
    )
    log_level: str | int | None = option(
        None,
        LogLevel(),
        "Least level of what is logged.",
        group="Logging",
        hint="info",
    )
    log_config: Mapping[str, Any] | str | None = option(
        LOGGING_CONFIG,
        LogConfig(),
        "File with a configuration of logging: .json, .yaml or .ini.",
        group="Logging",
    )
    use_colors: bool | None = option(
        None,
        Flag(optional=True),
        "Log in colors.",
        group="Logging",
        hint="on a terminal",
    )

    def __setattr__(self, name: str, value: Any) -> None:
        known = OPTIONS.get(name)
        if known is not None:
            value = known.kind.check(name, value)
            self.__dict__.pop("_logs", None)
        elif name != "app" and not name.startswith("_"):
            raise AttributeError(f"Config has no option {name!r}{suggest(name)}")
        object.__setattr__(self, name, value)

    # ---- What follows from the options ----

    def proxy_policy(self) -> ForwardedPolicy | None:
        """Return how fields of proxies are read; None for not at all."""
        if not self.proxy_headers:
            return None
        trusted = self.forwarded_allow_ips
        if trusted is None:
            trusted = os.environ.get("FORWARDED_ALLOW_IPS", DEFAULT_TRUSTED)
        try:
            return ForwardedPolicy(
                trusted,
                forwarded="forwarded" in self.forwarded_fields,
                host="host" in self.forwarded_fields,
                prefix="prefix" in self.forwarded_fields,
            )
        except ValueError as error:
            raise ConfigurationError(f"$FORWARDED_ALLOW_IPS: {error}") from None

    @property
    def drops_privileges(self) -> bool:
        """Whether the process becomes another user's, or another group's."""
        return self.user is not None or self.group is not None

    def check(self, *, flags: bool = False) -> None:
        """Raise ``ConfigurationError`` for options that exclude each other.

        With ``flags`` it names options as on the command line.
        """
        named = _find_flag if flags else str
        cert, key = named("ssl_certfile"), named("ssl_keyfile")
        if self.ssl_keyfile and not self.ssl_certfile:
            raise ConfigurationError(f"{key} needs {cert}")
        if self.ssl_keyfile and len(self.ssl_keyfile) != len(self.ssl_certfile):
            raise ConfigurationError(
                f"there are {len(self.ssl_certfile)} {cert} and "
                f"{len(self.ssl_keyfile)} {key}: each certificate has its key"
            )
        if not self.ssl_certfile:
            for name in ("insecure_bind", "http3"):
                if getattr(self, name):
                    raise ConfigurationError(
                        f"{named(name)} needs {cert}: without it nothing has TLS"
                    )
        if self.ssl_cert_reqs and not self.ssl_certfile:
            raise ConfigurationError(f"{named('ssl_cert_reqs')} needs {cert}")
        if self.bind:
            for name in _ADDRESS:
                if getattr(self, name) != OPTIONS[name].default:
                    raise ConfigurationError(
                        f"give {named('bind')} or {named(name)}, not both"
                    )
        elif self.uds is not None and self.fd is not None:
            raise ConfigurationError(f"give {named('uds')} or {named('fd')}, not both")
        if self.metrics_port is not None:
            import_prometheus()
        if self.reload and (self.workers or 1) > 1:
            raise ConfigurationError(
                f"give {named('reload')} or {named('workers')}: it has one process"
            )
        self.find_load_balancing(flags=flags)
        read_secrets(self.seed_file, named)
        find_identity(self.user, self.group, named)
        find_insecure_binds(self)
        if not any(bind.is_ip for bind in find_binds(self)) and self.http3:
            raise ConfigurationError(
                f"{named('http3')} needs a port: a Unix socket has no UDP"
            )

    def find_load_balancing(self, *, flags: bool = False) -> QuicLB | None:
        """Return how connection ids are made for a load balancer, if one reads them.

        Raises :class:`~nghttp2py.errors.ConfigurationError`, which with ``flags``
        names options as on the command line.
        """
        return make_load_balancing(
            self.quic_lb_server_id,
            self.quic_lb_nonce_length,
            self.quic_lb_config_id,
            self.quic_lb_key_file,
            _find_flag if flags else str,
        )

    @property
    def needs_supervisor(self) -> bool:
        """Whether there is a supervisor even for one worker: for what workers share."""
        return self.seed_file is not None or self.quic_lb_server_id is not None

    def load(self) -> ASGIApplication:
        """Import the application, and return it; a second call returns the same.

        Raises :class:`~nghttp2py.errors.ApplicationError`.
        """
        if self.app is None:
            raise ConfigurationError("there is no application")
        found: ASGIApplication | None = self.__dict__.get("_loaded")
        if found is None:
            found = load_application(
                self.app,
                factory=self.factory,
                app_dir=self.app_dir,
                interface=self.interface,
                wsgi_threads=self.wsgi_threads,
            )
            self._loaded = found
        return found

    @property
    def loaded(self) -> bool:
        """Whether the application was imported."""
        return "_loaded" in self.__dict__

    @property
    def loaded_app(self) -> ASGIApplication:
        """The application, imported if that was not done."""
        return self.load()

    def configure_logging(self) -> None:
        """Configure logging by ``log_config`` and ``log_level``.

        This is a no-op the second time, unless an option has been changed.  Raises
        ``ConfigurationError`` for a file that is no configuration.
        """
        if self.__dict__.get("_logs"):
            return
        configure_logging(
            self.log_config,
            level=self.log_level,
            access_log=self.access_log,
            access_format=self.access_logformat,
            use_colors=self.use_colors,
        )
        self._logs = True


#: Every option by its name, in the order of the documentation.
OPTIONS: dict[str, Option] = options_of(Config)


def has_address(config: Config) -> bool:
    """Return whether the configuration names an address to listen on."""
    return bool(config.bind) or any(
        getattr(config, name) != OPTIONS[name].default for name in _ADDRESS
    )


def find_binds(config: Config) -> list[Bind]:
    """Return where to listen, with TLS if there is a certificate."""
    if config.bind:
        return [to_bind(text) for text in config.bind]
    if config.uds is not None:
        return [Bind(path=config.uds)]
    if config.fd is not None:
        return [Bind(fd=config.fd)]
    return [Bind(host=config.host, port=config.port)]


def find_insecure_binds(config: Config) -> list[Bind]:
    """Return where to listen in the clear, beside ``find_binds``."""
    return [to_bind(text) for text in config.insecure_bind]


def suggest(name: str, *, flags: bool = False) -> str:
    """Return what to use instead of an unknown name, as the rest of a sentence.

    With ``flags`` options are named as on the command line.
    """
    return _suggest(name.replace("-", "_"), _find_flag if flags else str)


def _suggest(name: str, named: Callable[[str], str]) -> str:
    """``named`` returns how the name of an option is written."""
    if name in _ELSEWHERE:
        names = {each: named(each) for each in OPTIONS}
        return f": {_ELSEWHERE[name].format_map(names)}"
    close = difflib.get_close_matches(name, OPTIONS, 1)
    return f": did you mean {named(close[0])}?" if close else ""


def _find_flag(name: str) -> str:
    """Return an option as on the command line."""
    return OPTIONS[name].flag


def make_config(app: Any, options: Mapping[str, Any]) -> Config:
    """Return a ``Config``; ``TypeError`` names an unknown option, and a known one."""
    given = dict(options)
    for name, value in options.items():
        if name in OPTIONS:
            continue
        if value not in _NEUTRAL.get(name, ()):
            raise TypeError(f"there is no option {name!r}{suggest(name)}")
        del given[name]
    return Config(app, **given)


# ---- Files and the environment ----


def load_config(
    app: str | None = None,
    *,
    file: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Return the configuration of the command.

    ``options`` precede the variables ``NGHTTP2PY_*`` of ``environ``, these precede
    ``file``, which is TOML.  Raises ``ConfigurationError``, which names the source.
    """
    chosen: dict[str, Any] = {}
    if file is not None:
        chosen.update(_read_file(os.fspath(file)))
    chosen.update(_read_environment(environ))
    chosen.update(options or {})
    named = chosen.pop("app", None)
    return Config(named if app is None else app, **chosen)


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, known in OPTIONS.items():
        variable = PREFIX + name.upper()
        text = environ.get(variable)
        if text is not None:
            try:
                found[name] = known.kind.parse(name, text)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"${variable}: {error}") from None
    if environ.get(f"{PREFIX}APP"):
        found["app"] = environ[f"{PREFIX}APP"]
    return found


def find_unknown_variables(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each variable ``NGHTTP2PY_*`` that is no option."""
    found = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in _OTHER_VARIABLES or name.lower() in OPTIONS:
            continue
        hint = _suggest(name.lower(), lambda option: f"${PREFIX}{option.upper()}")
        found.append(f"${variable} is ignored: there is no such option{hint}")
    return found


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot read {path!r}: {reason}") from None
    parse = _find_toml()
    try:
        table = parse(data.decode())
    except ValueError as error:
        raise ConfigurationError(f"{path!r} is no TOML: {error}") from None
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name == "app":
            found[name] = value
            continue
        if name not in OPTIONS:
            raise ConfigurationError(
                f"{path!r} has the unknown option {key!r}{suggest(name)}"
            )
        try:
            found[name] = OPTIONS[name].kind.check(name, value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{path!r}: {error}") from None
    return found


def _find_toml() -> Callable[[str], dict[str, Any]]:
    """Return the function that parses TOML; Python 3.10 has none of its own."""
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        parse: Callable[[str], dict[str, Any]] = importlib.import_module(name).loads
    except ImportError:
        raise ConfigurationError(
            f"a configuration file needs the {name} package: "
            "pip install 'nghttp2py[asgi]'"
        ) from None
    return parse


_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def read_env_file(path: str) -> dict[str, str]:
    """Return the variables of a file of lines ``NAME=value``.

    A value may be in quotes; in double ones, a backslash escapes a quote, a backslash,
    and ``\\n``.  Empty lines and those that begin with ``#`` are ignored.  Raises
    ``ConfigurationError``.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {path!r}: {reason}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _VARIABLE.fullmatch(line)
        if match is None:
            raise ConfigurationError(f"{path!r}, line {number}, is not NAME=value")
        found[match[1]] = _unquote(match[2])
    return found


_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")


def _unquote(value: str) -> str:
    match = _QUOTED.fullmatch(value)
    if match is None:
        return re.sub(r"\s+#.*", "", value)
    if match[1] is not None:
        return match[1]
    return re.sub(r"\\(.)", lambda each: "\n" if each[1] == "n" else each[1], match[2])
