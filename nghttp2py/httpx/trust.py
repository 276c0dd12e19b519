"""Whose certificates a transport trusts, and its own: for TCP and for QUIC alike."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

from nghttp2py.arguments import check_bool, describe

if TYPE_CHECKING:
    from nghttp2py.quic import QuicConfiguration

__all__ = ["Trust"]

# Seconds after which a PING is sent on a connection of QUIC on which nothing was sent,
# so that a response may be silent for as long as ``read`` of its timeouts allows.
_KEEP_ALIVE = 15.0


class Trust:
    """What ``verify``, ``cert`` and ``trust_env`` of a transport say.

    As in httpx, ``verify`` is ``True``, ``False``, the path of a file or directory of
    authorities, or an ``ssl.SSLContext``; ``True`` means those that SSL_CERT_FILE or
    SSL_CERT_DIR of the environment names, if ``trust_env`` is true, else those of
    certifi, or of the system if certifi is not installed.  ``cert`` is the path of our
    certificate and its key, or a tuple of certificate, key and, possibly, password.

    Raises ``TypeError``, and ``OSError`` for a file that cannot be read or used.
    """

    def __init__(self, verify: Any, cert: Any, trust_env: bool) -> None:
        check_bool("trust_env", trust_env)
        if not isinstance(verify, (bool, str, os.PathLike, ssl.SSLContext)):
            raise TypeError(
                "verify must be a bool, a path or an ssl.SSLContext, not "
                f"{describe(verify)}"
            )
        self._cert = _to_parts(cert)
        self._verifies = verify is not False
        self._file: str | None = None
        self._directory: str | None = None
        self._given: ssl.SSLContext | None = None
        if isinstance(verify, ssl.SSLContext):
            self._given = verify
            self._load_cert(verify)
        elif verify is True:
            self._use_default(trust_env)
        elif not isinstance(verify, bool):
            path = os.fspath(verify)
            if os.path.isdir(path):
                self._directory = path
            else:
                self._file = path
        #: The context of connections of HTTP/2.
        self.context = self.make_context()

    def _use_default(self, trust_env: bool) -> None:
        if trust_env:
            self._file = os.environ.get("SSL_CERT_FILE") or None
            if self._file is None:
                self._directory = os.environ.get("SSL_CERT_DIR") or None
        if self._file is None and self._directory is None:
            try:
                import certifi
            except ImportError:
                paths = ssl.get_default_verify_paths()
                self._file, self._directory = paths.cafile, paths.capath
            else:
                self._file = certifi.where()

    def make_context(self) -> ssl.SSLContext:
        """Return the context that was given, or make one."""
        if self._given is not None:
            return self._given
        if self._verifies:
            context = ssl.create_default_context(
                cafile=self._file, capath=self._directory
            )
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._load_cert(context)
        return context

    def _load_cert(self, context: ssl.SSLContext) -> None:
        if self._cert is not None:
            context.load_cert_chain(*self._cert)

    def make_quic(self) -> QuicConfiguration:
        """Make the configuration of QUIC, which is imported here.

        Raises ``TLSConfigurationError`` if the context that was given asks for what
        QUIC cannot do.
        """
        from nghttp2py.asyncio.h3_client import adopt_trust, make_configuration

        configuration = make_configuration()
        configuration.keep_alive = _KEEP_ALIVE
        if self._given is not None:
            adopt_trust(configuration, self._given)
        elif not self._verifies:
            configuration.verify_mode = ssl.CERT_NONE
        else:
            configuration.load_verify_locations(self._file, self._directory)
        if self._cert is not None:
            configuration.load_cert_chain(*self._cert)
        return configuration


def _to_parts(cert: Any) -> tuple[Any, ...] | None:
    """Return the arguments of ``load_cert_chain``."""
    if cert is None:
        return None
    if isinstance(cert, (str, os.PathLike)):
        return (cert,)
    if isinstance(cert, tuple) and 1 <= len(cert) <= 3:
        return cert
    raise TypeError(
        f"cert must be a path or a tuple of up to three items, not {describe(cert)}"
    )
