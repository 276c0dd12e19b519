"""``nghttp2py features``: which C libraries are in use, and what they can do."""

from __future__ import annotations

import json

import click

import nghttp2py
from nghttp2py.libraries import origins

__all__ = ["command"]


@click.command("features")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def command(as_json: bool) -> None:
    """Show which C libraries are in use, and what they can do."""
    found = {"nghttp2py": nghttp2py.__version__, **nghttp2py.features()}
    origin = origins()
    if as_json:
        click.echo(json.dumps({**found, "origins": origin}, indent=2))
        return
    width = max(map(len, found))
    for name, value in found.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        where = f"  ({origin[name]})" if name in origin else ""
        click.echo(f"{name:{width}}  {value}{where}")
