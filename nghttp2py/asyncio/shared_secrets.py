"""The secrets that the workers of one server share."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from nghttp2py.arguments import check_type, describe

__all__ = ["SharedSecrets"]

# The bytes of each secret.  A key of session tickets has GnuTLS's length.
_LENGTHS = {"retry": 32, "reset": 32, "connection_ids": 32, "tickets": 64}

# The least bytes of a seed: those of the shortest secret.
_SEED = 32


@dataclass(frozen=True)
class SharedSecrets:
    """The secrets of a server, the same in all its workers.

    The supervisor makes them once, so that they outlive each worker: a client's tokens
    and session tickets are accepted by every worker, also after a restart of all.
    ``repr()`` shows none of them.
    """

    retry: bytes = field(repr=False)
    """Authenticates tokens of Retry packets and NEW_TOKEN frames (RFC 9000, 8.1)."""

    reset: bytes = field(repr=False)
    """Derives the tokens of stateless resets (RFC 9000, 10.3.2)."""

    connection_ids: bytes = field(repr=False)
    """Encrypts the number of the worker in QUIC connection ids."""

    tickets: bytes = field(repr=False)
    """Encrypts session tickets of QUIC."""

    def __post_init__(self) -> None:
        for name, length in _LENGTHS.items():
            value = getattr(self, name)
            check_type(name, value, bytes, "bytes")
            if len(value) != length:
                raise ValueError(f"{name} must have {length} bytes, not {len(value)}")

    @classmethod
    def create(cls) -> SharedSecrets:
        """Return new secrets, from the system's random bytes."""
        return cls(**{name: os.urandom(length) for name, length in _LENGTHS.items()})

    @classmethod
    def derive(cls, seed: bytes) -> SharedSecrets:
        """Return the secrets for a seed, for servers on several machines.

        ``seed`` must be at least 32 random bytes, which all the machines have.  Raises
        ``TypeError`` and ``ValueError``.
        """
        check_type("seed", seed, bytes, "bytes")
        if len(seed) < _SEED:
            raise ValueError(f"seed must have at least {_SEED} bytes, not {len(seed)}")
        secrets = {}
        for name, length in _LENGTHS.items():
            label = b"nghttp2py " + name.encode()
            secrets[name] = hmac.digest(seed, label, "sha512")[:length]
        return cls(**secrets)

    def to_json(self) -> dict[str, str]:
        """Return the secrets in hexadecimal, for a message to a worker."""
        return {each.name: getattr(self, each.name).hex() for each in fields(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> SharedSecrets:
        """Return what ``to_json`` has described; raise ``ValueError`` for another
        value."""
        if not isinstance(value, Mapping) or set(value) != set(_LENGTHS):
            raise ValueError(f"these are no shared secrets: {describe(value)}")
        return cls(**{name: bytes.fromhex(text) for name, text in value.items()})
