"""A certificate of an ACME authority: Debian's pebble, with certbot as its client."""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import urllib.request

import pytest
from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSServer
from loops import DEADLINE
from peers import (
    PEERS,
    authority,
    certificate,
    client_tls,
    free_port,
    listening,
    wait_until,
)
from recipes import Page

PEBBLE = shutil.which("pebble") or PEERS / "usr" / "bin" / "pebble"
NAME = "www.example.org"


class Loopback(BaseResolver):
    """All names are this machine's."""

    def resolve(self, request, handler):
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A("127.0.0.1")))
        return reply


@contextlib.contextmanager
def pebble(directory, http_port):
    """Run an authority that asks at a port; give the URL of its directory, and the
    certificate that signs others."""
    port, management = free_port(), free_port()
    names = DNSServer(Loopback(), port=0, address="127.0.0.1", logger=Quiet())
    certificate().private_key_pem.write_to_path(directory / "pebble.key")
    certificate().cert_chain_pems[0].write_to_path(directory / "pebble.pem")
    configuration = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(directory / "pebble.pem"),
        "privateKey": str(directory / "pebble.key"),
        "httpPort": http_port,
        "tlsPort": free_port(),
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": configuration}))
    names.start_thread()
    try:
        dns = names.server.server_address[1]
        command = [PEBBLE, "-config", directory / "pebble.json"]
        with listening(
            [*command, "-dnsserver", f"127.0.0.1:{dns}"],
            port,
            env=os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"},
        ):
            url = f"https://127.0.0.1:{management}/roots/0"
            with urllib.request.urlopen(url, context=client_tls()) as response:
                root = response.read().decode()
            yield f"https://127.0.0.1:{port}/dir", root
    finally:
        names.stop()
        names.server.server_close()


class Quiet:
    """Of the names that are asked for nothing is printed."""

    def __getattr__(self, name):
        return lambda *_: None


class Site(Page):
    """The page, with the ports and directories of this test."""

    def __init__(self, directory):
        super().__init__("cookbook/certificates", directory)
        self.clear = free_port()
        self.options = ""

    def moved(self, command):
        for before, after in (
            ("sudo ", ""),
            (" -u www-data", ""),
            ("/var/www/acme", self.directory / "webroot"),
            ("/etc/letsencrypt", self.directory / "config"),
            ("/run/site.pid", self.directory / "site.pid"),
            ("certbot certonly", f"certbot certonly {self.options}"),
            ("certbot renew", f"certbot renew {self.options}"),
            ("example.org", NAME),
            ("-b :80 ", f"-b 127.0.0.1:{self.clear} "),
            ("-bind :80", f"-bind 127.0.0.1:{self.clear}"),
            ("-b :443", f"-b 127.0.0.1:{self.port}"),
        ):
            command = command.replace(before, str(after))
        return command

    @property
    def environment(self):
        return super().environment | {
            "WEBROOT": str(self.directory / "webroot"),
            "REQUESTS_CA_BUNDLE": str(self.directory / "authority.pem"),
        }

    def served_certificate(self, root):
        """The certificate that a client sees, which ``root`` must have signed."""
        context = ssl.create_default_context(cadata=root)
        with (
            socket.create_connection(("127.0.0.1", self.port), DEADLINE) as sock,
            context.wrap_socket(sock, server_hostname=NAME) as connection,
        ):
            return connection.getpeercert()


# certbot computes for some seconds each time.
@pytest.mark.timeout(240)
def test_a_certificate_is_got_used_and_renewed(tmp_path):
    """By the server of acme.py, as the page says."""
    page = Site(tmp_path)
    authority().cert_pem.write_to_path(tmp_path / "authority.pem")
    with pebble(tmp_path, page.clear) as (directory, root):
        account = "--agree-tos --register-unsafely-without-email"
        page.options = (
            f"--server {directory} -n --config-dir {tmp_path}/config"
            f" --work-dir {tmp_path}/work --logs-dir {tmp_path}/logs"
        )
        page.run("sudo mkdir")
        page.options += f" {account}"
        first_server = "sudo nghttp2py run acme:app --app-dir examples -b"
        with page.serving(first_server, port=page.clear):
            page.run("sudo certbot certonly")
        with page.serving("sudo nghttp2py run acme:app --app-dir examples --insecure"):
            first = page.served_certificate(root)
            assert first["subjectAltName"] == (("DNS", NAME),)
            page.options = page.options.replace(account, "")
            page.options += " --force-renewal --no-random-sleep-on-renew"
            page.run("sudo certbot renew")
            wait_until(lambda: page.served_certificate(root) != first)
            # Everything else in the clear is sent to HTTPS.
            url = f"http://127.0.0.1:{page.clear}"
            sent = answer(url + "/a%20b?c=d", "-H", f"host: {NAME}:80")
            assert sent.startswith("HTTP/1.1 308 ")
            assert f"location: https://{NAME}/a%20b?c=d" in sent.splitlines()
            for path in "none", "..%2f..%2fauthority.pem", "%2e%2e/authority.pem":
                sent = answer(f"{url}/.well-known/acme-challenge/{path}")
                assert re.match(r"HTTP/1.1 (404|308) ", sent), sent


def answer(url, *options):
    """What curl prints of a response."""
    return subprocess.run(
        ["curl", "-sSi", "--path-as-is", *options, url],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
