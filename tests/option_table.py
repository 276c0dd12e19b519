"""Writes docs/asgi_options.rst: python tests/option_table.py > docs/asgi_options.rst"""

from nghttp2py.asgi.config import OPTIONS
from nghttp2py.asgi.kinds import Flag

HEAD = """\
Options of the ASGI server
==========================

.. This page is written by tests/option_table.py.

``nghttp2py run`` has every option on the command line; ``NAME`` in capitals with
``NGHTTP2PY_`` before it is its variable in the environment, and ``name`` its key in the
TOML file of ``--config`` and its parameter of :func:`nghttp2py.asgi.run` and
:class:`nghttp2py.asgi.Config`. The command line precedes the environment, this precedes
the file. ``none`` stands for no value, where that is possible. Times are in seconds,
sizes in bytes. Options that may be repeated are lists: in the environment ``HEADERS``
has one in each line, the others are separated by commas.

The command also has ``--config FILE`` (``-c``; ``$NGHTTP2PY_CONFIG``), ``--env-file
FILE``, whose lines ``NAME=value`` are put into the environment unless they are there,
and ``--check-config``, which checks the options, loads the application and ends.
"""


def table():
    """The page, as it should be."""
    groups = {}
    for name, option in OPTIONS.items():
        groups.setdefault(option.group, []).append((name, option))
    page = [HEAD]
    for group, options in groups.items():
        page.append(f"{group}\n{'-' * len(group)}\n")
        page.append(".. list-table::\n   :header-rows: 1\n   :widths: 30 16 54\n")
        page.append("   * - Option\n     - Default\n     - What it is")
        for name, option in options:
            flags = [f"-{flag}" for flag in option.flags if len(flag) == 1]
            flags.append(option.flag)
            if isinstance(option.kind, Flag):
                flags.append(f"--no-{option.flag.removeprefix('--')}")
            names = ", ".join(f"``{flag}``" for flag in flags)
            if option.flag != "--" + name.replace("_", "-"):
                names += f"; elsewhere ``{name}``"
            text = option.help.replace("*", "\\*")
            page.append(f"   * - {names}\n     - {option.default_text}\n     - {text}")
        page.append("")
    return "\n".join(page).rstrip() + "\n"


if __name__ == "__main__":
    print(table(), end="")
