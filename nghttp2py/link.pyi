from typing import Any

__all__ = ["MethodLink", "QuicLink", "register_link"]

class QuicLink: ...

class MethodLink(QuicLink):
    def __new__(cls, connection: Any) -> MethodLink: ...

def register_link(connection_class: type, link_class: type[QuicLink]) -> None: ...
