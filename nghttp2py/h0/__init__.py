"""HTTP/0.9 over QUIC, by aioquic's module path (``aioquic.h0``)."""
