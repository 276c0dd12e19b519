"""Why clients' handshakes fail: a few reasons, which metrics can count."""

from __future__ import annotations

import ssl

__all__ = ["ALERTS", "REASONS", "find_reason"]

#: The reasons, each of which is a label of metrics.
REASONS = (
    # The client sent something else, such as an HTTP request in the clear.
    "not_tls",
    # There is no version, cipher suite, group or signature that both sides have.
    "version",
    "parameters",
    # There is no protocol that both sides have (ALPN).
    "protocol",
    # The client has no certificate, or not one of a trusted authority.
    "client_certificate",
    # The client does not accept the server's certificate.
    "server_certificate",
    "timeout",
    # The connection was closed.
    "closed",
    "other",
)

#: The reasons of alerts that the server sends (RFC 8446, 6.2).
ALERTS = {
    40: "parameters",  # handshake_failure
    42: "client_certificate",  # bad_certificate
    43: "client_certificate",  # unsupported_certificate
    44: "client_certificate",  # certificate_revoked
    45: "client_certificate",  # certificate_expired
    46: "client_certificate",  # certificate_unknown
    48: "client_certificate",  # unknown_ca
    49: "client_certificate",  # access_denied
    70: "version",  # protocol_version
    71: "parameters",  # insufficient_security
    116: "client_certificate",  # certificate_required
    120: "protocol",  # no_application_protocol
}

# OpenSSL's names of errors.  The alerts of the peer have names that end with that of
# the alert.
_ERRORS = {
    "CERTIFICATE_VERIFY_FAILED": "client_certificate",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "HTTP_REQUEST": "not_tls",
    "NO_PROTOCOLS_AVAILABLE": "version",
    "NO_SHARED_CIPHER": "parameters",
    "NO_SHARED_GROUP": "parameters",
    "NO_SUITABLE_GROUPS": "parameters",
    "NO_SUITABLE_KEY_SHARE": "parameters",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "parameters",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "client_certificate",
    "RECORD_LAYER_FAILURE": "not_tls",
    "UNKNOWN_PROTOCOL": "version",
    "UNSUPPORTED_PROTOCOL": "version",
    "VERSION_TOO_LOW": "version",
    "WRONG_SSL_VERSION": "version",
    "WRONG_VERSION_NUMBER": "not_tls",
}


def find_reason(error: Exception) -> str:
    """Return the reason of an error of OpenSSL, or of another one."""
    if not isinstance(error, ssl.SSLError):
        return "other"
    name = error.reason or ""
    if "_ALERT_" not in name:
        return _ERRORS.get(name, "other")
    if "CERTIFICATE" in name or name.endswith(("_UNKNOWN_CA", "_ACCESS_DENIED")):
        return "server_certificate"
    if name.endswith("_PROTOCOL_VERSION"):
        return "version"
    if name.endswith(("_HANDSHAKE_FAILURE", "_INSUFFICIENT_SECURITY")):
        return "parameters"
    return "other"
