#!/usr/bin/env python3
"""Get a page, and what the server pushes with it, with handlers.

python examples/mirror.py host port [path]
"""

import sys

from nghttp2py import BaseResponseHandler, HTTP2Client


class Saver(BaseResponseHandler):
    """Counts the body, and tells of the response when it has come whole."""

    size = 0

    def on_data(self, data: bytes) -> None:
        self.size += len(data)

    def on_response_done(self) -> None:
        how = "pushed" if self.pushed else "got"
        print(how, (self.path or b"").decode(), self.status, self.size, "bytes")

    def on_push_promise(self, push_promise: BaseResponseHandler) -> None:
        self.accept_push(push_promise, Saver())

    def on_close(self, error_code: int) -> None:
        if error_code:
            print("no", (self.path or b"").decode(), "- error", error_code)


if __name__ == "__main__":
    host, port, *path = sys.argv[1:]
    # Leaving the block runs the client until every response has come.
    try:
        with HTTP2Client((host, int(port))) as client:
            client.send_request(url=path[0] if path else "/", handler=Saver())
    except OSError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
