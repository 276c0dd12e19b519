"""What a server of ASGI applications listens on: sockets, TLS and QUIC."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nghttp2py.asgi.binds import Bind, open_descriptor
from nghttp2py.asgi.config import (
    MIN_VERSIONS,
    Config,
    find_binds,
    find_insecure_binds,
    has_address,
)
from nghttp2py.asyncio.binding import (
    UnixPath,
    bind_tcp,
    bind_udp,
    bind_unix,
    describe_address,
)
from nghttp2py.asyncio.certificates import LoadedTLS, TLSOptions, load_tls
from nghttp2py.asyncio.server import DEFAULT_CONFIGURATION, make_server_quic
from nghttp2py.asyncio.timeouts import Timeouts
from nghttp2py.errors import ConfigurationError
from nghttp2py.h2 import H2Configuration
from nghttp2py.workers.activation import (
    InheritedSocket,
    forget_sockets,
    take_sockets,
)
from nghttp2py.workers.privileges import find_identity

if TYPE_CHECKING:
    from nghttp2py.quic import QuicConfiguration

logger = logging.getLogger(__name__)

__all__ = [
    "Endpoint",
    "Endpoints",
    "load_certificates",
    "make_quic",
    "make_timeouts",
]

# How many ports are tried to find one that is free for TCP and UDP.
_ATTEMPTS = 16


@dataclass
class Endpoint:
    """Sockets with the same TLS and the same protocols, for one server.

    Those of UDP have HTTP/3.
    """

    sockets: list[socket.socket]
    secure: bool
    http3: bool

    @property
    def scheme(self) -> str:
        """ "https" or "http"."""
        return "https" if self.secure else "http"


@dataclass
class Endpoints:
    """The sockets of a configuration, bound, not yet listening."""

    found: list[Endpoint] = field(default_factory=list)
    paths: list[UnixPath] = field(default_factory=list)
    # The sockets that are in no endpoint yet: with TLS, and in the clear.
    _tls: list[socket.socket] = field(default_factory=list)
    _clear: list[socket.socket] = field(default_factory=list)
    # The sockets of UDP that were opened beside those of TCP, not given.
    opened_udp: list[socket.socket] = field(default_factory=list)
    # Those that no address has chosen yet.
    _inherited: list[InheritedSocket] = field(default_factory=list)

    async def bind(
        self, config: Config, sockets: Sequence[socket.socket] | None = None
    ) -> None:
        """Bind all that the configuration names, or take ``sockets``.

        Raises ``OSError``, which names the address, and ``ConfigurationError``; then
        nothing stays bound.
        """
        secure = bool(config.ssl_certfile)
        http3 = secure and config.http3 is not False and has_quic(config)
        ours = self._tls if secure else self._clear
        try:
            if sockets is not None:
                ours += sockets
                pair = http3
            else:
                binds = self._inherit(config)
                for bind in binds:
                    ours += await self._open(bind, config, http3)
                for bind in find_insecure_binds(config):
                    self._clear += await self._open(bind, config, False)
                # A unit names the sockets of UDP that it wants.
                pair = http3 and (
                    config.http3 is True or any(bind.fd is not None for bind in binds)
                )
                self._drop_inherited()
            if pair and not any(sock.type == socket.SOCK_DGRAM for sock in ours):
                ours += self._open_udp(ours)
            self._group(http3)
        except BaseException:
            self.close()
            raise

    def _inherit(self, config: Config) -> list[Bind]:
        """Take the sockets of systemd; return where to listen, beside insecure_bind.

        They are used if an address of the configuration names them, or if it has no
        address.
        """
        binds = find_binds(config)
        given = [*binds, *find_insecure_binds(config)]
        explicit = has_address(config)
        if explicit and all(bind.systemd is None for bind in given):
            count = forget_sockets()
            if count and all(bind.fd is None for bind in given):
                logger.warning(
                    "%d sockets of systemd are not used: the configuration has an "
                    "address",
                    count,
                )
            return binds
        self._inherited = take_sockets()
        return binds if explicit or not self._inherited else [Bind(systemd="")]

    def _choose(self, bind: Bind, config: Config) -> list[socket.socket]:
        """Return the sockets of systemd that an address names."""
        others = {
            each.systemd for each in (*find_binds(config), *find_insecure_binds(config))
        }
        found = [
            each
            for each in self._inherited
            if each.name == bind.systemd
            or (not bind.systemd and each.name not in others)
        ]
        if not found:
            raise ConfigurationError(
                f"systemd has passed no socket for {bind}: the unit of the sockets "
                "starts the service"
            )
        for each in found:
            self._inherited.remove(each)
        return [each.sock for each in found]

    def _drop_inherited(self) -> None:
        for each in self._inherited:
            logger.warning(
                "nothing listens on %s (%s) of systemd: no address names it",
                describe_address(each.sock.getsockname()),
                each.name,
            )
            each.sock.close()
        self._inherited.clear()

    async def _open(
        self, bind: Bind, config: Config, http3: bool
    ) -> list[socket.socket]:
        if bind.systemd is not None:
            return self._choose(bind, config)
        if bind.path is not None:
            # Not chmod: another user of the directory could put a link at the path, and
            # root would change the file to which it leads.
            before = os.umask(~config.uds_permissions & 0o777)
            try:
                sock, path = bind_unix(bind.path)
            finally:
                os.umask(before)
            if path is not None:
                self.paths.append(path)
                uid, gid, _ = find_identity(config.user, config.group)
                owner = -1 if uid is None else uid, gid or -1
                with contextlib.suppress(OSError):
                    os.chown(bind.path, *owner, follow_symlinks=False)
            return [sock]
        if bind.fd is not None:
            return [open_descriptor(bind.fd)]
        loop = asyncio.get_running_loop()
        for left in range(_ATTEMPTS, 0, -1):
            try:
                sockets = await bind_tcp(
                    loop, bind.host, bind.port, reuse_port=config.reuse_port
                )
            except socket.gaierror as error:
                raise OSError(
                    error.errno, f"cannot listen on {bind}: {error.strerror}"
                ) from None
            if not http3:
                break
            try:
                return sockets + self._open_udp(sockets)
            except OSError as error:
                for sock in sockets:
                    sock.close()
                if bind.port or left == 1 or error.errno != errno.EADDRINUSE:
                    raise
        return sockets

    def _open_udp(self, sockets: list[socket.socket]) -> list[socket.socket]:
        """Return sockets of UDP at the addresses of those of IP.  Raises
        ``OSError``."""
        found: list[socket.socket] = []
        try:
            for sock in sockets:
                if sock.family != socket.AF_UNIX:
                    found.append(bind_udp(sock))
        except BaseException:
            for sock in found:
                sock.close()
            raise
        self.opened_udp += found
        return found

    def _group(self, http3: bool) -> None:
        """Make an endpoint of the sockets of each kind."""
        for sock in self._clear if http3 else [*self._tls, *self._clear]:
            if sock.type == socket.SOCK_DGRAM:
                raise ConfigurationError(
                    f"nothing can be served on {describe_address(sock.getsockname())} "
                    "of UDP, because it has no TLS or http3 is off"
                )
        has_udp = any(sock.type == socket.SOCK_DGRAM for sock in self._tls)
        kinds: dict[tuple[bool, bool], list[socket.socket]] = {}
        for secure, sockets in (True, self._tls), (False, self._clear):
            for sock in sockets:
                quic = secure and has_udp and sock.family != socket.AF_UNIX
                kinds.setdefault((secure, quic), []).append(sock)
        self.found = [Endpoint(each, *kind) for kind, each in kinds.items()]

    @property
    def streams(self) -> list[socket.socket]:
        """The sockets of TCP and of Unix paths."""
        return [
            sock
            for endpoint in self.found
            for sock in endpoint.sockets
            if sock.type == socket.SOCK_STREAM
        ]

    def close(self) -> None:
        """Close the sockets that no server has taken, and remove the paths."""
        self.remove_paths()
        for sock in [
            *self._tls,
            *self._clear,
            *(sock for endpoint in self.found for sock in endpoint.sockets),
            *(each.sock for each in self._inherited),
        ]:
            sock.close()

    def remove_paths(self) -> None:
        """Remove the Unix sockets' paths, so that no client tries them."""
        for path in self.paths:
            path.remove()
        self.paths.clear()


def describe_socket(sock: socket.socket, scheme: str) -> str:
    """Return the URL of a socket, or the path of a Unix socket."""
    address = describe_address(sock.getsockname())
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"{scheme}://{address}"
    return f"{address} ({scheme})"


# ---- TLS ----


def load_certificates(config: Config) -> LoadedTLS:
    """Read the certificates of a server.  Raises ``ConfigurationError``."""
    keys: Sequence[str | None] = config.ssl_keyfile or [None] * len(config.ssl_certfile)
    try:
        return load_tls(
            TLSOptions(
                list(zip(config.ssl_certfile, keys, strict=True)),
                password=config.ssl_keyfile_password,
                ca_certs=config.ssl_ca_certs,
                verify_mode=config.ssl_cert_reqs,
                minimum_version=MIN_VERSIONS[config.ssl_min_version],
                ciphers=config.ssl_ciphers,
            )
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {error.filename!r}: {error.strerror or error}"
        ) from None


def has_quic(config: Config) -> bool:
    """Return whether this build has QUIC; raise if it must."""
    try:
        for name in "quic", "h3":
            importlib.import_module(f"nghttp2py.{name}")
    except ImportError as error:
        if config.http3:
            raise ConfigurationError(f"http3 is not in this build: {error}") from None
        return False
    return True


def make_quic(config: Config, tls: LoadedTLS, timeouts: Timeouts) -> QuicConfiguration:
    """Return the configuration of QUIC with the certificates of TLS.

    Raises ``ConfigurationError``.
    """
    from nghttp2py.asyncio.quic_server import check_server_configuration

    quic = make_server_quic(tls, timeouts)
    quic.max_streams_bidi = config.h2_max_concurrent_streams
    try:
        check_server_configuration(quic)
    except ValueError as error:
        names = ", ".join(repr(each.path) for each in tls.certificates)
        raise ConfigurationError(
            f"HTTP/3 cannot use the certificate of {names}: {error}"
        ) from None
    return quic


# ---- HTTP ----


def make_timeouts(config: Config) -> Timeouts:
    """Return the time bounds of connections."""
    return Timeouts(
        handshake=config.timeout_handshake,
        headers=config.timeout_request_head,
        body=config.timeout_body,
        response=config.timeout_response_stall,
        idle=config.timeout_keep_alive,
        keep_alive=config.timeout_keep_alive,
        close=config.timeout_graceful_shutdown,
    )


def make_h2(config: Config, *, tunnels: bool) -> H2Configuration:
    """Return the settings and limits of HTTP/2.

    ``tunnels`` is whether extended CONNECT is announced (RFC 8441).
    """
    return replace(
        DEFAULT_CONFIGURATION,
        max_concurrent_streams=config.h2_max_concurrent_streams,
        enable_connect_protocol=tunnels,
    )
