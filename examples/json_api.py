"""A service of JSON over HTTP/2: each request is answered by one coroutine.

python json_api.py [port]
curl --http2-prior-knowledge -d '[1, 2, 3]' 'localhost:8080/sum?name=total'
"""

import json
import sys

from nghttp2py import BaseRequestHandler, HTTP2Server


class Handler(BaseRequestHandler):
    """Adds the numbers that a client sends."""

    max_body_size = 65536  # a larger body gets 413

    async def on_request(self) -> None:
        """Answer ``POST /sum``."""
        if self.method != b"POST" or self.path.partition(b"?")[0] != b"/sum":
            self.send_response(404)
            return
        numbers = await self.json()  # what is not JSON gets 400
        if not isinstance(numbers, list) or not all(
            isinstance(number, int) for number in numbers
        ):
            self.send_response(422, body="a list of integers is wanted\n")
            return
        answer = {self.query.get("name", "sum"): sum(numbers)}
        headers = {"content-type": "application/json"}
        self.send_response(200, headers, json.dumps(answer) + "\n")


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    HTTP2Server(("localhost", port), Handler).serve_forever()
