from typing import Any

from nghttp2py.h3.config import H3Configuration
from nghttp2py.h3.events import H3Event

__all__ = ["H3Session"]

class H3Session:
    def __init__(
        self,
        quic: Any,
        enable_webtransport: bool = False,
        *,
        config: H3Configuration | None = None,
    ) -> None: ...
    def handle_event(self, event: Any) -> list[H3Event]: ...
    @property
    def received_settings(self) -> dict[int, int] | None: ...
    @property
    def sent_settings(self) -> dict[int, int]: ...
