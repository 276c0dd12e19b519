from collections.abc import Sequence

from nghttp2py.quic.connection import NetworkAddress
from nghttp2py.quic.load_balancing import QuicLB

BLOCK_LENGTHS: tuple[int, int]

def encrypt_block(key: bytes, block: bytes) -> bytes: ...
def decrypt_block(key: bytes, block: bytes) -> bytes: ...

class ConnectionIds:
    @property
    def length(self) -> int: ...
    def __new__(
        cls,
        *,
        secret: bytes,
        slot: int,
        generation: int,
        load_balancing: QuicLB | None = None,
    ) -> ConnectionIds: ...
    def make(self) -> bytes: ...
    def read(self, connection_id: bytes) -> tuple[int, int] | None: ...

class QuicHeader:
    version: int | None
    is_initial: bool
    destination_cid: bytes
    source_cid: bytes
    token: bytes
    is_retry_token: bool

class Router:
    @property
    def versions(self) -> frozenset[int]: ...
    def __new__(
        cls,
        *,
        secret: bytes,
        connection_id_length: int,
        versions: Sequence[int],
        token_secret: bytes | None = None,
        connection_ids: ConnectionIds | None = None,
    ) -> Router: ...
    def read_header(self, data: bytes) -> QuicHeader | None: ...
    def split_run(
        self, run: tuple[bytes, NetworkAddress, int, int]
    ) -> list[tuple[bytes, NetworkAddress, int, int]]: ...
    def write_version_negotiation(self, header: QuicHeader) -> bytes: ...
    def write_retry(
        self, header: QuicHeader, addr: NetworkAddress, now: float
    ) -> bytes: ...
    def verify_retry(
        self, header: QuicHeader, addr: NetworkAddress, now: float
    ) -> bytes | None: ...
    def write_token(self, addr: NetworkAddress, now: float) -> bytes: ...
    def verify_token(
        self, header: QuicHeader, addr: NetworkAddress, now: float
    ) -> bool: ...
    def write_refusal(self, header: QuicHeader, error_code: int) -> bytes: ...
    def write_stateless_reset(self, header: QuicHeader, received: int) -> bytes: ...
