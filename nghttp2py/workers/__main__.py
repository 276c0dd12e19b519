"""The program of a worker process: its argument is the descriptor of its channel."""

from __future__ import annotations

import socket
import sys

from nghttp2py.workers.worker import run_worker

if __name__ == "__main__":
    sys.exit(run_worker(socket.socket(fileno=int(sys.argv[1]))))
