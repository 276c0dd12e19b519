"""``nghttp2py run``: an ASGI application over HTTP/1.1, HTTP/2 and HTTP/3."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import click

from nghttp2py.asgi.config import (
    OPTIONS,
    PREFIX,
    Config,
    find_unknown_variables,
    load_config,
    read_env_file,
    suggest,
)
from nghttp2py.asgi.kinds import Flag, Option
from nghttp2py.errors import ApplicationError, ConfigurationError, printable

__all__ = ["command"]

logger = logging.getLogger(__name__)


def _make_parser(
    option: Option,
) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the callback that parses the text of an option."""
    kind = option.kind

    def parse(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if kind.many:
                # An item is not cut at the separators of the environment.
                return kind.check(option.name, list(value)) if value else None
            return None if value is None else kind.parse(option.name, value)
        except (TypeError, ValueError) as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return parse


def _make_option(option: Option) -> click.Option:
    """Make the option of the command from one of the table."""
    names = [f"-{flag}" for flag in option.flags if len(flag) == 1]
    flag = option.flag
    settings: dict[str, Any] = {
        "help": f"{option.help}  [default: {option.default_text}]",
        "default": None,
    }
    if isinstance(option.kind, Flag):
        names.append(f"{flag}/--no-{flag.removeprefix('--')}")
    else:
        names.append(flag)
        settings["metavar"] = option.kind.metavar
        settings["multiple"] = option.kind.many
        settings["callback"] = _make_parser(option)
        if option.kind.many:
            del settings["default"]
    return click.Option([option.name, *names], **settings)


class Run(click.Command):
    """The command, whose help has the options in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; say what to use instead of another's option."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = suggest(error.option_name.lstrip("-"), flags=True)
            if not hint:
                raise
            raise click.UsageError(
                f"there is no option {error.option_name}{hint}", ctx
            ) from None

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options, by their groups."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                known = OPTIONS.get(param.name or "")
                group = "Command" if known is None else known.group
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _load(app: str | None, given: dict[str, Any]) -> Config:
    """Return the configuration; the file of variables comes first."""
    env_file = given.pop("env_file") or os.environ.get(f"{PREFIX}ENV_FILE")
    if env_file:
        for name, value in read_env_file(env_file).items():
            os.environ.setdefault(name, value)
    file = given.pop("config") or os.environ.get(f"{PREFIX}CONFIG")
    options = {name: value for name, value in given.items() if value is not None}
    config = load_config(app, file=file, options=options)
    if config.app_dir is None:
        config.app_dir = os.curdir
    if config.app is None:
        raise click.UsageError("there is no application: give its name, as main:app")
    config.check(flags=True)
    return config


def _run(app: str | None, check_config: bool, **given: Any) -> None:
    """Serve the application APP until Ctrl-C.

    APP is module:attribute, such as main:app; module:function() calls a function that
    returns the application.

    Every option can be in the file of --config, as bind = ["127.0.0.1:8000"], and in
    the environment, as NGHTTP2PY_BIND.  An option of the command line precedes the
    environment, which precedes the file.
    """
    try:
        config = _load(app, given)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    try:
        config.configure_logging()
        for text in find_unknown_variables():
            logger.warning("%s", printable(text))
        if check_config:
            config.load()
            if config.ssl_certfile:
                from nghttp2py.asgi.endpoints import load_certificates

                load_certificates(config)
            click.echo(f"The configuration of {config.app} can be used.")
            return
        # Imported here: other commands have no use for it.
        from nghttp2py.asgi.running import run_config

        code = run_config(config, may_leave=True)
    except ApplicationError as error:
        from nghttp2py.asgi.server import STARTUP_FAILURE

        if error.details:
            click.echo(error.details.rstrip(), err=True)
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(STARTUP_FAILURE) from None
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(error.strerror or str(error)) from None
    raise SystemExit(code)


command = Run(
    "run",
    callback=_run,
    help=_run.__doc__,
    params=[
        click.Argument(["app"], required=False),
        click.Option(
            ["-c", "--config"],
            metavar="FILE",
            help="TOML file with options; names may have hyphens or underscores.",
        ),
        click.Option(
            ["--env-file"],
            metavar="FILE",
            help="File with lines NAME=value for the environment, which precedes it.",
        ),
        click.Option(
            ["--check-config"],
            is_flag=True,
            help="Check the options, load the application, and end.",
        ),
        *map(_make_option, OPTIONS.values()),
    ],
)
