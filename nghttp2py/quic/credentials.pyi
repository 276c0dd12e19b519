from typing import Any

class Credentials:
    def __new__(cls, configuration: Any, made_of: Any) -> Credentials: ...
