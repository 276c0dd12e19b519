from typing import Any, NamedTuple

def library_versions() -> dict[str, str]: ...

class TLSState(NamedTuple):
    alpn_negotiated: str | None
    early_data_accepted: bool
    session_resumed: bool
    cipher_suite: int | None
    server_name: str | None
    own_certificate: bytes | None

class Credentials:
    def __new__(cls, configuration: Any, made_of: Any) -> Credentials: ...
