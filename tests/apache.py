"""Apache of Debian, as a server and as a proxy."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from peers import PEERS, certificate, free_port, listening

APACHE = shutil.which("apache2") or PEERS / "usr" / "sbin" / "apache2"
MODULES = ("", str(PEERS))[str(APACHE).startswith(str(PEERS))] + "/usr/lib/apache2"

# As root it serves files as a user who may read what all may.
CONFIGURATION = """
ServerRoot {root}
ServerName localhost
PidFile {root}/pid
ErrorLog {root}/error.log
DefaultRuntimeDir {root}
User nobody
Group nogroup
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
{modules}
Listen 127.0.0.1:{clear}
Listen 127.0.0.1:{tls}
Protocols h2 h2c http/1.1
SSLCertificateFile {root}/cert.pem
SSLCertificateKeyFile {root}/key.pem
SSLSessionCache none
DocumentRoot {root}/site
<Directory {root}/site>
    Require all granted
    ForceType text/plain
</Directory>
<VirtualHost 127.0.0.1:{tls}>
    SSLEngine on
</VirtualHost>
{settings}
"""
LOADED = (
    *("mpm_event", "authz_core", "http2", "ssl", "alias", "dir", "filter", "deflate"),
    *("proxy", "proxy_http", "proxy_connect", "authz_host"),
)


@contextlib.contextmanager
def apache(files, settings=""):
    """Serve files, a dict of bytes by name; give the ports, clear and of TLS."""
    clear, tls = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "site").mkdir()
        for path, data in files.items():
            (root / "site" / path).write_bytes(data)
            # The ETag of a file that has just been written is weak for a second.
            os.utime(root / "site" / path, (0, 1_000_000_000))
        certificate().private_key_pem.write_to_path(root / "key.pem")
        certificate().cert_chain_pems[0].write_to_path(root / "cert.pem")
        modules = "\n".join(
            f"LoadModule {name}_module {MODULES}/modules/mod_{name}.so"
            for name in LOADED
        )
        path = root / "apache.conf"
        path.write_text(
            CONFIGURATION.format(
                root=root, clear=clear, tls=tls, modules=modules, settings=settings
            )
        )
        libraries = [str(each) for each in (PEERS / "usr" / "lib").glob("*-linux-gnu")]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries)}
        command = [APACHE, "-D", "FOREGROUND", "-f", path]
        with listening(command, clear, env=environment):
            yield clear, tls
