"""Header blocks pass through: decode for one connection, encode for another."""

from nghttp2py import HDDeflater, HDInflater, NeverIndexed, print_hd_table

# What a client sends us, on its connection.
client = HDDeflater()
blocks = [
    client.deflate(
        [
            (":method", "GET"),
            (":path", path),
            ("user-agent", "example/1.0"),
            NeverIndexed("x-api-key", "a secret"),
        ]
    )
    for path in ("/", "/about")
]

# Each connection has a coder for each direction, and each block meets them in order.
inflater = HDInflater(max_header_list_size=16384)
deflater = HDDeflater()
for block in blocks:
    # A block may come in pieces, as HEADERS and CONTINUATION frames carry it.
    headers = inflater.inflate(block[:5], final=False)
    headers += inflater.inflate(block[5:])
    # The pairs of secrets keep their mark: they enter no table here either.
    passed_on = deflater.deflate([*headers, ("via", "2 proxy")])
    print(f"{len(block)} bytes in, {len(passed_on)} bytes out")

print_hd_table(deflater.get_hd_table())
