"""``nghttp2py get``: send requests, and show the responses and their statistics.

It is a tool of every day, with curl's names for options, variables and exit codes.
``options`` has the command, ``run`` one run of it, ``transfer`` what is done for one
URL, and ``origins`` and ``dialing`` the connections.
"""

from nghttp2py.cli.get.options import command

__all__ = ["command"]
