"""What the workers of a server share by its options: secrets, and the layout of QUIC's
connection ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nghttp2py.asyncio.shared_secrets import SharedSecrets
from nghttp2py.errors import ConfigurationError

if TYPE_CHECKING:
    # Imported when it is first used: not every build has QUIC.
    from nghttp2py.quic.load_balancing import QuicLB

__all__ = ["make_load_balancing", "read_secrets"]


def read_secrets(
    path: str | None, named: Callable[[str], str] = str
) -> SharedSecrets | None:
    """Return the secrets that a file is the seed of; ``None`` without a file.

    Raises ``ConfigurationError``, also for a file that cannot be read.  ``named``
    returns how it writes the name of an option.
    """
    if path is None:
        return None
    name = named("seed_file")
    try:
        return SharedSecrets.derive(_read(name, path))
    except ValueError as error:
        raise ConfigurationError(f"{name} is no seed: {error}") from None


def make_load_balancing(
    server_id: str | None,
    nonce_length: int,
    config_id: int,
    key_file: str | None,
    named: Callable[[str], str] = str,
) -> QuicLB | None:
    """Return the layout of connection ids for a load balancer; ``None`` without a
    server id.

    ``server_id``, and the key in the file, are in hexadecimal.  Raises
    ``ConfigurationError``, also for a file that cannot be read.  ``named`` returns
    how it writes the name of an option.
    """
    needed, key_name = named("quic_lb_server_id"), named("quic_lb_key_file")
    if server_id is None:
        if key_file is not None:
            raise ConfigurationError(f"{key_name} needs {needed}")
        return None
    try:
        from nghttp2py.quic.load_balancing import QuicLB
        from nghttp2py.quic.routing import ConnectionIds
    except ImportError as error:
        raise ConfigurationError(f"{needed} needs QUIC: {error}") from None
    try:
        key = None
        if key_file is not None:
            text = _read(key_name, key_file).decode("ascii")
            key = bytes.fromhex(text.strip())
        layout = QuicLB(bytes.fromhex(server_id), nonce_length, config_id, key)
        ConnectionIds(secret=bytes(32), slot=0, generation=0, load_balancing=layout)
    except ValueError as error:
        raise ConfigurationError(f"the options of QUIC-LB: {error}") from None
    return layout


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}") from None
