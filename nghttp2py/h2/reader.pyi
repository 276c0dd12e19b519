from typing import Any

class EventReader:
    def __new__(cls, sources: dict[int, Any]) -> EventReader: ...
