"""Connection ids that a load balancer can read: draft-ietf-quic-load-balancers-21."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nghttp2py.arguments import check_int, check_type, describe
from nghttp2py.quic.routing import BLOCK_LENGTHS, decrypt_block, encrypt_block

__all__ = ["QuicLB"]

_LEAST_BLOCK, _MOST_BLOCK = BLOCK_LENGTHS

_STATE = {"config_id", "server_id", "nonce_length", "key"}


@dataclass(frozen=True)
class QuicLB:
    """How a server makes its connection ids, so that a load balancer finds the server.

    All servers behind the load balancer have the same configuration, but for
    ``server_id``.  Raises ``TypeError`` and ``ValueError`` for values that the draft
    does not allow.
    """

    server_id: bytes
    """The number of this server, 1 to 15 bytes."""

    nonce_length: int = 8
    """The length of what differs from one id to the next, 4 to 18 bytes; with
    ``server_id`` at most 19 bytes.  A server with workers needs 8, and at most 18 bytes
    with ``server_id``."""

    config_id: int = 0
    """The number of the configuration, 0 to 6."""

    key: bytes | None = field(default=None, repr=False)
    """16 bytes that encrypt the ids, or ``None``: then an observer can read
    ``server_id``, and sees that two ids belong to one server."""

    def __post_init__(self) -> None:
        check_type("server_id", self.server_id, bytes, "bytes")
        length = len(self.server_id)
        if not 1 <= length <= 15:
            raise ValueError(f"server_id must have 1 to 15 bytes, not {length}")
        check_int("nonce_length", self.nonce_length, 4, _MOST_BLOCK - length)
        check_int("config_id", self.config_id, 0, 6)
        if self.key is not None:
            check_type("key", self.key, bytes, "bytes or None")
            if len(self.key) != 16:
                raise ValueError(f"key must have 16 bytes, not {len(self.key)}")

    def encode(self, nonce: bytes) -> bytes:
        """Return the connection id with a nonce, of ``nonce_length`` bytes.

        A nonce must not be used twice, and must look random if there is no key.
        """
        check_type("nonce", nonce, bytes, "bytes")
        if len(nonce) != self.nonce_length:
            raise ValueError(
                f"nonce must have {self.nonce_length} bytes, not {len(nonce)}"
            )
        block = self.server_id + nonce
        if self.key is not None:
            block = encrypt_block(self.key, block)
        return bytes([self.config_id << 5 | len(block)]) + block

    def decode(self, connection_id: bytes) -> bytes | None:
        """Return the server id that a load balancer finds in a connection id.

        ``None`` for an id that has no such: of another configuration, or too short.
        """
        length = len(self.server_id) + self.nonce_length
        if len(connection_id) <= length or connection_id[0] >> 5 != self.config_id:
            return None
        block = connection_id[1 : length + 1]
        if self.key is not None:
            block = decrypt_block(self.key, block)
        return block[: len(self.server_id)]

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a JSON value, for a message to a worker."""
        return {
            "config_id": self.config_id,
            "server_id": self.server_id.hex(),
            "nonce_length": self.nonce_length,
            "key": None if self.key is None else self.key.hex(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> QuicLB:
        """Return what ``to_json`` has described; raise ``ValueError`` for another
        value."""
        if not isinstance(value, Mapping) or set(value) != _STATE:
            raise ValueError(f"this is no configuration of QUIC-LB: {describe(value)}")
        key = value["key"]
        return cls(
            bytes.fromhex(value["server_id"]),
            value["nonce_length"],
            value["config_id"],
            None if key is None else bytes.fromhex(key),
        )
