"""``python -m nghttp2py``, and the command of that name."""

import os
import sys


def open_standard_descriptors() -> None:
    """Open /dev/null for standard input, output and error where these are closed.

    Else a socket gets such a number: what a library writes to standard error is sent to
    a client, and uvloop ends the process by SIGABRT.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def main() -> None:
    """Run the command, or name in one sentence what is not installed."""
    open_standard_descriptors()
    try:
        from nghttp2py.cli import main as command

        command(prog_name="nghttp2py")
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.exit(
            f"nghttp2py: the command needs the {package} package: "
            "pip install 'nghttp2py[cli]'"
        )


if __name__ == "__main__":
    main()
