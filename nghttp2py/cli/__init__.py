"""The ``nghttp2py`` command: one module for each subcommand (extra ``cli``)."""

from __future__ import annotations

import importlib

import click

from nghttp2py import __version__

__all__ = ["main"]


class _Commands(click.Group):
    """Commands whose module, of the same name, is imported when one is called.

    ``run`` would start in twice the time if it imported what ``get`` needs.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["features", "get", "hpack", "run", "serve"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"nghttp2py.cli.{cmd_name}")
        command: click.Command = module.command
        return command


@click.group(cls=_Commands)
@click.version_option(__version__, prog_name="nghttp2py")
def main() -> None:
    """HTTP/2 and HTTP/3 from the command line."""
