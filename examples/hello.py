#!/usr/bin/env python3
"""A page over HTTPS that tells how it was asked for; its style is pushed.

    python examples/hello.py [port]

The certificate is made on first use, is good for localhost only, and is kept in
.state/ beside the project (or in the directory that HELLO_STATE names).
"""

import asyncio
import datetime
import html
import ipaddress
import os
import signal
import ssl
import sys
import time
from pathlib import Path

import nghttp2py
from nghttp2py.errors import error_code_name

STATE = Path(os.environ.get("HELLO_STATE", Path(__file__).parent.parent / ".state"))

# Days for which the certificate is good.
LIFETIME = 365

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello, HTTP/2</title>
<link rel="stylesheet" href="/style.css">
<main>
<h1>Hello, HTTP/2</h1>
<p>nghttp2py {version} with nghttp2 {library} has answered you
on <b>stream {stream}</b> of a connection from <b>{client}</b>.
The style of this page was <b>{pushed}</b>.</p>
<h2>Your request</h2>
<table>{rows}</table>
<h2>What to try next</h2>
<pre>{commands}</pre>
</main>
</html>
"""

CSS = {"content-type": "text/css"}
STYLE = """
:root { color-scheme: light dark; font: 17px/1.5 system-ui, sans-serif }
body { margin: 0; background: light-dark(#f6f5f1, #17181b) }
main { max-width: 46rem; margin: 4rem auto; padding: 0 1.5rem }
h1 { font-size: 2.6rem; letter-spacing: -.03em; color: #0a7d5a; margin: 0 }
h2 { font-size: 1rem; text-transform: uppercase; letter-spacing: .08em;
     margin: 2.5rem 0 .5rem; color: #8a8577 }
table { border-collapse: collapse; width: 100%; font: .85rem/1.6 monospace }
td { border-top: 1px solid #8884; padding: .15rem 1rem .15rem 0;
     vertical-align: top; overflow-wrap: anywhere }
td:first-child { color: #0a7d5a; white-space: nowrap }
pre { background: #8882; padding: 1rem; border-radius: .5rem; overflow: auto;
      font-size: .85rem }
"""


class Hello(nghttp2py.BaseRequestHandler):
    """Serves the page at /, its style at /style.css."""

    def on_headers(self) -> None:
        path = self.path.partition(b"?")[0]
        if self.method not in (b"GET", b"HEAD"):
            self.send_response(405, {"allow": "GET, HEAD"})
        elif path == b"/":
            # What is pushed goes out before what refers to it.
            pushes = self.push_enabled
            if pushes:
                self.push("/style.css", headers=CSS, body=STYLE)
            self.send_response(
                200, {"content-type": "text/html; charset=utf-8"}, self.page(pushes)
            )
        elif path == b"/style.css":
            self.send_response(200, CSS, STYLE)
        else:
            self.send_response(404, {"content-type": "text/plain"}, "Not found\n")

    def page(self, pushed: bool) -> str:
        """The page, with what is known of this request."""
        rows = "".join(
            f"<tr><td>{html.escape(name.decode('latin-1'))}"
            f"<td>{html.escape(value.decode('latin-1'))}"
            for name, value in self.headers
        )
        host = self.host or b"localhost"
        url = f"https://{host.decode('latin-1')}"
        commands = (
            f"curl --cacert {certificate_files()[0]} -v {url}/\n"
            f"nghttp --no-verify-peer -v {url}/     # shows the push\n"
            f"h2load -n 100000 -c 10 -m 32 {url}/"
        )
        return PAGE.format(
            version=nghttp2py.__version__,
            library=nghttp2py.features()["nghttp2"],
            stream=self.stream_id,
            client=html.escape(str(self.client_address[0])),
            pushed="pushed to you"
            if pushed
            else "fetched: your client takes no pushes",
            rows=rows,
            commands=html.escape(commands),
        )

    def on_close(self, error_code: int) -> None:
        path = self.path.decode("ascii", "backslashreplace")
        end = "" if error_code == 0 else f" ({error_code_name(error_code)})"
        pushed = "pushed " if self.pushed else ""
        print(f"{pushed}{path} {self.status} to {self.client_address[0]}{end}")


def certificate_files() -> tuple[Path, Path]:
    """The paths of the certificate and of its key."""
    return STATE / "localhost.pem", STATE / "localhost.key"


def make_certificate() -> None:
    """Make a self-signed certificate for this machine's loopback addresses."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        sys.exit("the certificate is made by the cryptography package: install it")

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=LIFETIME))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = certificate_files()
    STATE.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    with open(os.open(key_file, flags, 0o600), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def make_context() -> ssl.SSLContext:
    """The TLS context, with a certificate that is not about to expire."""
    certificate_file, key_file = certificate_files()
    # A month before it expires.
    old = (LIFETIME - 30) * 24 * 3600
    if (
        not (certificate_file.exists() and key_file.exists())
        or time.time() - certificate_file.stat().st_mtime > old
    ):
        make_certificate()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate_file, key_file)
    return context


async def main() -> None:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8443
    server = nghttp2py.HTTP2Server(("127.0.0.1", port), Hello, ssl=make_context())
    try:
        await server.start()
    except OSError as error:
        sys.exit(f"cannot listen on port {port}: {error.strerror}")
    port = server.sockets[0].getsockname()[1]
    url = f"https://localhost:{port}/"
    print(f"Serving {url}  (Ctrl-C stops)")
    print(f"Try:    curl --cacert {certificate_files()[0]} {url}", flush=True)
    await server.serve(signals=(signal.SIGINT, signal.SIGTERM))


if __name__ == "__main__":
    asyncio.run(main())
