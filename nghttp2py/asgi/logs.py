"""Logging of the server of ASGI applications: its default configuration, and files."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import logging.config
import sys
from collections.abc import Mapping
from typing import Any

from nghttp2py.access_formats import make_formatter
from nghttp2py.asgi.kinds import LEVELS
from nghttp2py.errors import ConfigurationError

__all__ = ["LOGGING_CONFIG", "Formatter", "configure_logging"]

_COLORS = {
    logging.DEBUG: "36",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "91",
}


class Formatter(logging.Formatter):
    """A formatter whose ``levelprefix`` is the level, in color on a terminal.

    ``use_colors`` is None for what ``stream`` is: "ext://sys.stderr" or
    "ext://sys.stdout".
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Any = "%",
        use_colors: bool | None = None,
        stream: str = "stderr",
    ) -> None:
        super().__init__(fmt, datefmt, style)
        if use_colors is None:
            out = sys.stdout if stream == "stdout" else sys.stderr
            use_colors = out is not None and out.isatty()
        self._use_colors = use_colors

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the line of a record."""
        name = record.levelname
        color = _COLORS.get(record.levelno)
        shown = f"\x1b[{color}m{name}\x1b[0m" if self._use_colors and color else name
        record.__dict__["levelprefix"] = f"{shown}:" + " " * max(1, 9 - len(name))
        return super().formatMessage(record)


#: The default of ``log_config``: requests on standard output, the rest on standard
#: error.  What concerns single connections is at INFO, and so left out.
LOGGING_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {
            "()": "nghttp2py.asgi.logs.Formatter",
            "fmt": "%(levelprefix)s%(message)s",
            "stream": "stderr",
        },
        "access": {
            "()": "nghttp2py.asgi.logs.Formatter",
            "fmt": "%(levelprefix)s%(message)s",
            "stream": "stdout",
        },
    },
    "handlers": {
        "default": {
            "class": "logging.StreamHandler",
            "formatter": "default",
            "stream": "ext://sys.stderr",
        },
        "access": {
            "class": "logging.StreamHandler",
            "formatter": "access",
            "stream": "ext://sys.stdout",
        },
    },
    "loggers": {
        "nghttp2py": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "nghttp2py.asyncio": {"level": "WARNING"},
        "nghttp2py.access": {
            "handlers": ["access"],
            "level": "INFO",
            "propagate": False,
        },
    },
}


def configure_logging(
    config: Mapping[str, Any] | str | None,
    *,
    level: str | int | None = None,
    access_log: bool = True,
    access_format: str | None = None,
    use_colors: bool | None = None,
) -> None:
    """Configure logging by a dictionary or a file; with None only levels are set.

    ``access_format`` is for the handlers of ``nghttp2py.access``.

    Raises ``ConfigurationError`` for a file that cannot be read or is no configuration.
    """
    logging.addLevelName(LEVELS["trace"], "TRACE")
    if isinstance(config, Mapping):
        config = copy.deepcopy(dict(config))
        if use_colors is not None:
            for formatter in config.get("formatters", {}).values():
                if formatter.get("()") == "nghttp2py.asgi.logs.Formatter":
                    formatter["use_colors"] = use_colors
        _apply("log_config", config)
    elif config is not None:
        _apply_file(config)
    if level is not None:
        number = LEVELS[level] if isinstance(level, str) else level
        logging.getLogger("nghttp2py").setLevel(number)
        # Below INFO, what concerns single connections is wanted, too.
        quiet = number if number < logging.INFO else max(number, logging.WARNING)
        logging.getLogger("nghttp2py.asyncio").setLevel(quiet)
    access = logging.getLogger("nghttp2py.access")
    if level is not None:
        access.setLevel(number)
    if access_format is not None:
        for handler in access.handlers:
            handler.setFormatter(make_formatter(access_format))
    if not access_log:
        access.handlers = []
        access.propagate = False
        access.setLevel(logging.CRITICAL + 1)


def _apply(name: str, config: Any) -> None:
    if not isinstance(config, dict):
        raise ConfigurationError(f"{name} is no configuration of logging")
    try:
        logging.config.dictConfig(config)
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise ConfigurationError(
            f"{name} is no configuration of logging: {reason}"
        ) from None


def _apply_file(path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read log_config {path!r}: {reason}") from None
    name = f"log_config {path!r}"
    if path.endswith(".json"):
        try:
            config = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"{name} is no JSON: {error}") from None
        _apply(name, config)
    elif path.endswith((".yaml", ".yml")):
        _apply(name, _parse_yaml(name, text))
    else:
        try:
            logging.config.fileConfig(path, disable_existing_loggers=False)
        except Exception as error:  # what configparser and the handlers raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ConfigurationError(
                f"{name} is no configuration of logging: {reason}"
            ) from None


def _parse_yaml(name: str, text: str) -> Any:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ConfigurationError(
            f"{name} needs the PyYAML package: pip install 'nghttp2py[asgi]'"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{name} is no YAML: {reason}") from None
