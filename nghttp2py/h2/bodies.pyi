from typing import final

__all__ = ["BodySources"]

@final
class BodySources: ...
