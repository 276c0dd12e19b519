"""The program of a worker process.

Its arguments are the descriptor of its channel, and modules to import.
"""

from __future__ import annotations

import socket
import sys

from nghttp2py.workers.worker import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
