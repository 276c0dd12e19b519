"""The kinds of options: what values each takes, from Python, TOML and text."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nghttp2py.arguments import check_bool, check_int, check_seconds, describe

__all__ = [
    "LEVELS",
    "CertReqs",
    "Choice",
    "Files",
    "Flag",
    "Headers",
    "Integer",
    "Kind",
    "LogConfig",
    "LogLevel",
    "Option",
    "Seconds",
    "Text",
    "Texts",
    "option",
    "options_of",
]

#: The names of log levels; "trace" is below "debug", as for uvicorn.
LEVELS = {
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": 5,
}

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
# The name and the value of a field (RFC 9110, 5.1 and 5.5).
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Kind(ABC):
    """The values of an option.  ``check`` and ``parse`` raise ``TypeError`` and
    ``ValueError``."""

    metavar = "TEXT"
    optional = False
    many = False  # a list, whose option may be repeated on the command line

    @abstractmethod
    def check(self, name: str, value: Any) -> Any:
        """Return a value of Python or TOML as it is kept."""

    def convert(self, name: str, text: str) -> Any:
        """Return the value that a text stands for."""
        return text

    def parse(self, name: str, text: str) -> Any:
        """Check and return the value of a text; "none" is None for what may be so."""
        if self.optional and text.lower() == "none":
            return None
        return self.check(name, self.convert(name, text))

    def show(self, value: Any) -> str:
        """Return a value as a text that ``parse`` takes."""
        return "none" if value is None else str(value)


@dataclass(frozen=True)
class Flag(Kind):
    """True or false; with ``optional`` None, too."""

    optional: bool = False
    metavar = ""

    def check(self, name: str, value: Any) -> Any:
        if not (value is None and self.optional):
            check_bool(name, value)
        return value

    def convert(self, name: str, text: str) -> Any:
        word = text.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError(f"{name} must be true or false, not {text!r}")

    def show(self, value: Any) -> str:
        return "auto" if value is None else ("on" if value else "off")


@dataclass(frozen=True)
class Integer(Kind):
    """An integer from ``least`` to ``most``."""

    least: int = 0
    most: int | None = None
    optional: bool = False
    metavar = "INTEGER"

    def check(self, name: str, value: Any) -> Any:
        if not (value is None and self.optional):
            check_int(name, value, self.least, self.most)
        return value

    def convert(self, name: str, text: str) -> Any:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name} must be an integer, not {text!r}") from None


@dataclass(frozen=True)
class Seconds(Kind):
    """A number of seconds."""

    optional: bool = False
    zero: bool = False
    metavar = "SECONDS"

    def check(self, name: str, value: Any) -> Any:
        limits = {"least": 0.0} if self.zero else {}
        check_seconds(name, value, optional=self.optional, **limits)
        return value

    def convert(self, name: str, text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            raise ValueError(
                f"{name} must be a number of seconds, not {text!r}"
            ) from None

    def show(self, value: Any) -> str:
        return "none" if value is None else f"{value:g}"


@dataclass(frozen=True)
class Text(Kind):
    """A str, or what has the path of a file."""

    optional: bool = False
    empty: bool = True
    metavar: str = "TEXT"

    def check(self, name: str, value: Any) -> Any:
        if value is None and self.optional:
            return None
        if isinstance(value, os.PathLike):
            value = os.fsdecode(value)
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, not {describe(value)}")
        if not value and not self.empty:
            raise ValueError(f"{name} must not be empty")
        return value

    def show(self, value: Any) -> str:
        return "none" if value is None else value or "empty"


class Choice(Kind):
    """One of several words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.metavar = f"[{'|'.join(words)}]"

    def check(self, name: str, value: Any) -> Any:
        if value not in self.words:
            words = ", ".join(self.words)
            raise ValueError(f"{name} must be one of {words}, not {describe(value)}")
        return value


@dataclass(frozen=True)
class Texts(Kind):
    """A list of str.  A text has them separated by ``separator``."""

    separator: str = ","
    metavar: str = "TEXT"
    many = True

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
            raise TypeError(f"{name} must be a list of str, not {describe(value)}")
        return [self.check_one(name, one) for one in value]

    def check_one(self, name: str, value: Any) -> Any:
        """Return an item of the list as it is kept."""
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a list of str, not of {describe(value)}")
        if not value:
            raise ValueError(f"{name} must hold no empty str")
        return value

    def convert(self, name: str, text: str) -> Any:
        items = [item.strip() for item in text.split(self.separator)]
        return [item for item in items if item]

    def show(self, value: Any) -> str:
        return self.separator.join(value) or "none"


@dataclass(frozen=True)
class Files(Texts):
    """A list of paths; None is an empty one."""

    metavar: str = "FILE"

    def check(self, name: str, value: Any) -> Any:
        if value is None:
            return []
        return super().check(name, [value] if isinstance(value, os.PathLike) else value)

    def check_one(self, name: str, value: Any) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fsdecode(value)
        return super().check_one(name, value)


@dataclass(frozen=True)
class Headers(Texts):
    """A list of fields, as pairs or as texts "name: value"; kept as pairs of str."""

    separator: str = "\n"
    metavar: str = "NAME:VALUE"

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = value.items()
        return super().check(name, value)

    def check_one(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            field, colon, content = value.partition(":")
            if not colon:
                raise ValueError(f"{name} must be 'name: value', not {value!r}")
            value = field, content.strip()
        try:
            field, content = (
                one.decode("latin-1") if isinstance(one, bytes) else one
                for one in value
            )
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be pairs of str, not {value!r}") from None
        if not isinstance(field, str) or not isinstance(content, str):
            raise TypeError(f"{name} must be pairs of str, not {value!r}")
        if not _FIELD_NAME.fullmatch(field):
            raise ValueError(f"{field!r} in {name} is no name of a field")
        if not _FIELD_VALUE.fullmatch(content):
            raise ValueError(f"{content!r} in {name} is no value of a field")
        return field, content


class LogLevel(Kind):
    """A level of logging, by name or as a number."""

    optional = True
    metavar = f"[{'|'.join(LEVELS)}]"

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            value = value.lower()
            if value not in LEVELS:
                names = ", ".join(LEVELS)
                raise ValueError(f"{name} must be one of {names}, not {value!r}")
        elif value is not None:
            check_int(name, value, 0)
        return value


class LogConfig(Kind):
    """A dictionary for logging.config, the path of a file, or None."""

    optional = True
    metavar = "FILE"

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, os.PathLike):
            value = os.fsdecode(value)
        if value is not None and not isinstance(value, str | dict):
            raise TypeError(
                f"{name} must be a dict, a path or None, not {describe(value)}"
            )
        return value

    def show(self, value: Any) -> str:
        return "built in" if isinstance(value, dict) else str(value).lower()


class CertReqs(Kind):
    """Whether a client must have a certificate: a word, or a number of ``ssl``."""

    words = ("none", "optional", "required")
    metavar = f"[{'|'.join(words)}]"

    def check(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if value.isdecimal():
                value = int(value)
            elif value in self.words:
                value = self.words.index(value)
        if isinstance(value, bool) or value not in (0, 1, 2):
            words = ", ".join(self.words)
            raise ValueError(
                f"{name} must be one of {words}, or 0, 1, 2, not {describe(value)}"
            )
        return ssl.VerifyMode(value)

    def show(self, value: Any) -> str:
        return self.words[value]


# ---- The options of a class ----


@dataclass(frozen=True)
class Option:
    """An option: a field of a dataclass, and what describes it."""

    name: str
    kind: Kind
    default: Any
    help: str
    group: str
    flags: tuple[str, ...]
    hint: str

    @property
    def flag(self) -> str:
        """The option on the command line."""
        return "--" + (self.flags[-1] if self.flags else self.name.replace("_", "-"))

    @property
    def default_text(self) -> str:
        """The default as a text."""
        return self.hint or self.kind.show(self.default)


def option(
    default: Any,
    kind: Kind,
    help: str,
    *,
    group: str,
    flags: tuple[str, ...] = (),
    hint: str = "",
    secret: bool = False,
) -> Any:
    """Return a field of a dataclass that is an option.

    ``flags`` are its names on the command line without their hyphens, if they are
    not its own; ``hint`` says what the default is, where the value does not.  The value
    of a ``secret`` is not in the object's ``repr``.
    """
    metadata = {
        "kind": kind,
        "help": help,
        "group": group,
        "flags": flags,
        "hint": hint,
    }
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def options_of(cls: Any) -> dict[str, Option]:
    """Return the options of a dataclass by name, in their order."""
    return {
        field.name: Option(
            field.name,
            default=(
                field.default_factory()
                if field.default_factory is not dataclasses.MISSING
                else field.default
            ),
            **field.metadata,
        )
        for field in dataclasses.fields(cls)
        if field.metadata
    }
