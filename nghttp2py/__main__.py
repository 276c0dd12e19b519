"""``python -m nghttp2py``, and the command of that name."""

import sys


def main() -> None:
    """Run the command, or name in one sentence what is not installed."""
    try:
        from nghttp2py.cli import main as command
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in ("click", "rich"):
            raise
        sys.exit(
            f"nghttp2py: the command needs the {package} package: "
            "pip install 'nghttp2py[cli]'"
        )
    command(prog_name="nghttp2py")


if __name__ == "__main__":
    main()
