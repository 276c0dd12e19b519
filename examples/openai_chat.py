"""Streams the answer to a question from OpenAI's API, over HTTP/2 or HTTP/3.

It needs the openai package, and a key in OPENAI_API_KEY.  OPENAI_BASE_URL may name
another server of the same API.
"""

import asyncio
import sys

from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from nghttp2py.httpx import AsyncTransport


async def main(question: str) -> None:
    transport = AsyncTransport(http3=True)
    http_client = DefaultAsyncHttpxClient(transport=transport)
    async with AsyncOpenAI(http_client=http_client) as client:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": question}],
            stream=True,
        )
        async for chunk in answer:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is HTTP/3?"))
