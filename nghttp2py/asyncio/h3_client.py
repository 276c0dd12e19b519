"""How a ``Client`` makes its connections of HTTP/3.

Imported when HTTP/3 is asked for: not every build has QUIC.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import ssl as ssl_module
from functools import partial
from typing import Any

from nghttp2py.arguments import check_type
from nghttp2py.asyncio.h2_client import DEFAULT_CONFIGURATION
from nghttp2py.asyncio.h3 import H3_CLIENT_TIMEOUTS, H3Protocol
from nghttp2py.asyncio.quic import establish, with_alpn
from nghttp2py.asyncio.quic_protocol import QuicConnectionError, QuicRefusedError
from nghttp2py.asyncio.timeouts import UNSET, merge_timeouts
from nghttp2py.asyncio.url import SplitURL
from nghttp2py.asyncio.waiters import wait_for
from nghttp2py.errors import (
    ConfigurationError,
    ConnectionTerminatedError,
    ConnectTimeoutError,
    HTTPVersionError,
    TLSConfigurationError,
    printable,
)
from nghttp2py.h3 import H3_ALPN
from nghttp2py.h3.connection import ErrorCode
from nghttp2py.quic import QuicConfiguration, QuicConnection, QuicErrorCode
from nghttp2py.quic.events import ConnectionTerminated
from nghttp2py.quic.packet import error_name

__all__ = ["OPTIONS", "HTTP3Connector", "adopt_trust", "make_configuration"]

# What the timeout of a response must not lose to, in seconds.
_IDLE_MARGIN = 10.0

# With HTTP/2 to fall back to, a path without packets is given up after ten seconds.
_FALLBACK_TIMEOUTS = dataclasses.replace(
    H3_CLIENT_TIMEOUTS, keepalive=5.0, keepalive_answer=5.0
)

# Alerts of TLS: those about certificates (RFC 8446, 6.2), and RFC 7301, 3.2.
_CERTIFICATE_ALERTS = range(42, 49)
_NO_APPLICATION_PROTOCOL = 120

_CRL_CHECKS = ssl_module.VERIFY_CRL_CHECK_LEAF | ssl_module.VERIFY_CRL_CHECK_CHAIN

# The options that make up ``Timeouts``, and what they are called there.
_TIMES = {
    "settings_timeout": "settings",
    "idle_timeout": "idle",
    "keepalive_interval": "keepalive",
    "keepalive_timeout": "keepalive_answer",
    "close_timeout": "close",
}

#: The options of a connection of HTTP/3.
OPTIONS = frozenset({"cls", "server_hostname", "timeouts", *_TIMES})


class HTTP3Connector:
    """Makes connections of HTTP/3 to one origin.

    ``quic`` is a configuration, or ``None`` for one of our own, which trusts the
    authorities of ``ssl`` and has the windows of HTTP/2.  ``path`` and
    ``config``, which are of HTTP/2, must be ``None``.  ``options`` are ``cls``,
    ``server_hostname``, ``timeouts`` and what replaces a field of ``timeouts``.
    ``has_fallback`` means that HTTP/2 is used where this fails: a path that delivers
    nothing any more is then noticed earlier.  Raises ``TypeError``, ``ValueError`` and
    ``OSError`` for what cannot be used.
    """

    def __init__(
        self,
        url: SplitURL,
        path: str | None,
        config: object,
        *,
        quic: QuicConfiguration | None,
        ssl: ssl_module.SSLContext | None,
        connect_timeout: float | None,
        timeout: float | None,
        cls: Any = H3Protocol,
        server_hostname: str | None = None,
        timeouts: Any = None,
        has_fallback: bool = False,
        **options: Any,
    ) -> None:
        if url.scheme != "https":
            raise ConfigurationError(
                f"http3 needs an origin of https, not {url.scheme}://{url.authority}"
            )
        if path is not None:
            raise ConfigurationError(f"path must be None with http3, not {path!r}")
        if config is not None:
            raise ConfigurationError(
                "config has settings of HTTP/2 and must be None with http3: give a "
                "QuicConfiguration as http3"
            )
        assert url.host is not None and url.port is not None
        for name in options:
            if name not in _TIMES:
                raise TypeError(f"{name!r} is no option of a connection of HTTP/3")
        self._authority = f"{url.authority}"
        self._host = url.host
        self._port = url.port
        self._connect_timeout = connect_timeout
        interval = options.get("keepalive_interval")
        times = {name: options.get(key, UNSET) for key, name in _TIMES.items()}
        if interval is None:
            times["keepalive"] = UNSET
        default = _FALLBACK_TIMEOUTS if has_fallback else H3_CLIENT_TIMEOUTS
        timeouts = merge_timeouts(timeouts or default, **times)
        self._create_protocol = partial(cls, timeouts=timeouts)
        if quic is not None:
            check_type("quic", quic, QuicConfiguration, "a QuicConfiguration or None")
            if ssl is not None and not has_fallback:
                raise ConfigurationError(
                    "ssl must be None if http3 is a QuicConfiguration, which says "
                    "whom to trust"
                )
            configuration = dataclasses.replace(
                with_alpn(quic, H3_ALPN), is_client=True
            )
        else:
            configuration = make_configuration(timeout)
            if ssl is not None:
                adopt_trust(configuration, ssl)
        if interval is not None:
            configuration.keep_alive = interval
        if configuration.server_name is None:
            # A certificate is of an address, not of its zone here (RFC 6874, 4).
            configuration.server_name = server_hostname or url.host.partition("%")[0]
        # It reads the files, and says what is wrong with them.
        QuicConnection(configuration=configuration)
        self._configuration = configuration

    async def connect(
        self, host: str | None = None, port: int | None = None
    ) -> H3Protocol:
        """Make a connection, to another endpoint than the origin's if one is given.

        The certificate is always checked for the origin (RFC 7838, 2.1).  Raises
        ``OSError``, of which ``ConnectionRefusedError``, ``ConnectTimeoutError``,
        ``ssl.SSLCertVerificationError`` and ``ConnectionTerminatedError`` are kinds.
        """
        task = asyncio.ensure_future(
            establish(
                host or self._host,
                port or self._port,
                configuration=self._configuration,
                create_protocol=self._create_protocol,
                refusals=True,
            )
        )
        try:
            attempt = await wait_for(task, self._connect_timeout)
        except (asyncio.CancelledError, asyncio.TimeoutError) as error:
            # The connection may be made in the turn in which this ends.
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().discard()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ConnectTimeoutError(
                f"no connection to {self._host}:{self._port} over UDP in "
                f"{self._connect_timeout} seconds"
            ) from None
        except QuicRefusedError as error:
            raise ConnectionRefusedError(errno.ECONNREFUSED, str(error)) from None
        except QuicConnectionError as error:
            raise _explain(self._authority, error.event) from None
        protocol = attempt.protocol
        assert isinstance(protocol, H3Protocol)
        return protocol

    @staticmethod
    def close(protocol: H3Protocol, timeout: float | None) -> None:
        """Begin the graceful end of a connection."""
        protocol.shut_down_soon(timeout)


def make_configuration(timeout: float | None = None) -> QuicConfiguration:
    """Make the configuration of a client whose responses may take ``timeout`` seconds.

    Its windows are those of HTTP/2's.
    """
    return QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        congestion_control_algorithm="cubic",
        # A response that does not come is reported by its own timeout.
        idle_timeout=_IDLE_MARGIN + max(timeout or 0, QuicConfiguration.idle_timeout),
        max_data=DEFAULT_CONFIGURATION.connection_window_size,
        max_stream_data=DEFAULT_CONFIGURATION.initial_window_size,
        probe_datagram_size=True,
    )


def adopt_trust(configuration: QuicConfiguration, ssl: ssl_module.SSLContext) -> None:
    """Have QUIC trust the authorities that an SSL context trusts.

    A context does not give away its own certificate.  Raises ``TLSConfigurationError``
    if the context asks for what QUIC cannot do.
    """
    if ssl.verify_mode == ssl_module.CERT_NONE:
        configuration.verify_mode = ssl_module.CERT_NONE
        return
    if not ssl.check_hostname:
        raise TLSConfigurationError(
            "ssl has check_hostname = False, but QUIC checks a trusted certificate's "
            "name: give http3 a QuicConfiguration with a server_name"
        )
    if ssl.verify_flags & _CRL_CHECKS:
        raise TLSConfigurationError(
            "ssl has verify_flags that ask for revocation lists, which QUIC does not "
            "read"
        )
    authorities = ssl.get_ca_certs(binary_form=True)
    if not authorities:
        has_others = ssl.cert_store_stats()["x509"] > 0
        raise TLSConfigurationError(
            "ssl names no authority that QUIC could be given: "
            + (
                "what it trusts is a self-signed certificate that is no authority's"
                if has_others
                else "it does not list those of a directory (capath)"
            )
            + ". Give its path to http3, as QuicConfiguration(cafile=...), or under "
            "httpx as verify"
        )
    configuration.cadata = "".join(
        map(ssl_module.DER_cert_to_PEM_cert, authorities)
    ).encode()


def _explain(where: str, event: ConnectionTerminated) -> OSError:
    """Make the exception that says why there is no connection."""
    reason = printable(event.reason_phrase)
    code = event.error_code
    if event.frame_type is not None and code >= QuicErrorCode.CRYPTO_ERROR:
        alert = code - QuicErrorCode.CRYPTO_ERROR
        if alert == _NO_APPLICATION_PROTOCOL:
            return HTTPVersionError(
                ErrorCode.H3_VERSION_FALLBACK,
                negotiated=None,
                remote=True,
                reason=f"{where} does not speak HTTP/3",
            )
        # The text is ours: a peer's alert comes without one.
        if alert in _CERTIFICATE_ALERTS and reason:
            error = ssl_module.SSLCertVerificationError(
                1, f"the certificate of {where} is not trusted: {reason}"
            )
            error.verify_message = reason
            return error
        reason = f"no TLS connection to {where}: alert {alert} {reason}"
    else:
        reason = f"no QUIC connection to {where}: {reason}"
    name = f"{code:#x}" if event.frame_type is None else error_name(code)
    return ConnectionTerminatedError(
        code, remote=False, unprocessed=True, reason=reason.rstrip(), code_name=name
    )
