"""The ``nghttp2py`` command: one module for each subcommand (extra ``cli``)."""

import click

from nghttp2py import __version__
from nghttp2py.cli import features, get, hpack, run, serve

__all__ = ["main"]


@click.group()
@click.version_option(__version__, prog_name="nghttp2py")
def main() -> None:
    """HTTP/2 and HTTP/3 from the command line."""


# Each module has its click command or group as `command`.
for _module in (get, serve, run, hpack, features):
    main.add_command(_module.command)
