"""Serve with several processes: a supervisor, and the workers that it starts."""

from nghttp2py.workers.supervisor import run
from nghttp2py.workers.worker import Worker

__all__ = ["Worker", "run"]
