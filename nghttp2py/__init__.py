"""HTTP/2 for Python at the speed of C."""

__version__ = "0.1.0"
