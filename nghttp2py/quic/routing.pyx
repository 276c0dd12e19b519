"""Handling of datagrams for which a server has no connection."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from nghttp2py cimport cngp_quic as lib
from nghttp2py.octets cimport copy_bytes
from nghttp2py.quic.addresses cimport pack_address, to_ns
from nghttp2py.quic.options cimport known_versions

# How long the token of a Retry packet is valid.
cdef uint64_t RETRY_TIMEOUT = 30 * 1000000000ULL

# How long a token of a NEW_TOKEN frame proves the address that it was sent to: after
# that the address may belong to another client.
cdef uint64_t TOKEN_TIMEOUT = 24 * 3600 * 1000000000ULL


# The least and the most bytes of what QUIC-LB encrypts.
BLOCK_LENGTHS = lib.NGP_CID_MIN_BLOCK, lib.NGP_CID_MAX_BLOCK

# The configuration of an id that no load balancer can read.
cdef enum:
    UNROUTABLE = 7

# The nonce of such an id: with it, one pass of AES encrypts the whole.
cdef enum:
    NONCE_LENGTH = 16


cdef int check_cipher(int rv) except -1:
    if rv == lib.NGHTTP2_ERR_NOMEM:
        raise MemoryError
    if rv != 0:
        raise ValueError("a block has 5 to 19 bytes")
    return 0


def encrypt_block(bytes key not None, bytes block not None):
    """Encrypt a server id and a nonce as QUIC-LB does (draft-21, 5.4)."""
    cdef bytearray data = bytearray(block)

    if len(key) != lib.NGP_CID_KEY_LEN:
        raise ValueError("a key has 16 bytes")
    check_cipher(lib.ngp_cid_encrypt(
        <const uint8_t *>PyBytes_AS_STRING(key), <uint8_t *><char *>data, len(data)))
    return bytes(data)


def decrypt_block(bytes key not None, bytes block not None):
    """Reverse ``encrypt_block``."""
    cdef bytearray data = bytearray(block)

    if len(key) != lib.NGP_CID_KEY_LEN:
        raise ValueError("a key has 16 bytes")
    check_cipher(lib.ngp_cid_decrypt(
        <const uint8_t *>PyBytes_AS_STRING(key), <uint8_t *><char *>data, len(data)))
    return bytes(data)


cdef class ConnectionIds:
    """Makes the connection ids of a worker, and reads those of the others.

    ``secret`` is 32 bytes that the workers share.  ``load_balancing`` is a ``QuicLB``,
    or ``None`` if there is no load balancer that reads the ids.  ``generation`` is
    counted modulo 256.  Raises ``ValueError`` if the ids were too long or the nonce too
    short.
    """

    def __cinit__(
        self, *, bytes secret not None, uint8_t slot, generation, load_balancing=None
    ):
        cdef lib.ngp_cid_layout *layout = &self._layout
        cdef const uint8_t *secrets = <const uint8_t *>PyBytes_AS_STRING(secret)
        cdef bytes server_id
        cdef bytes key

        if len(secret) != 32:
            raise ValueError("secret must have 32 bytes")
        memset(layout, 0, sizeof(layout[0]))
        layout.slot = slot
        layout.generation = generation % 256
        layout.config_id = UNROUTABLE
        layout.nonce_len = NONCE_LENGTH
        memcpy(layout.own_key, secrets, lib.NGP_CID_KEY_LEN)
        memcpy(layout.mask, secrets + lib.NGP_CID_KEY_LEN, sizeof(layout.mask))
        # An odd factor loses no bits.
        layout.mask[1] |= 1
        if load_balancing is None:
            return
        server_id = load_balancing.server_id
        key = load_balancing.key
        if load_balancing.nonce_length < lib.NGP_CID_MIN_NONCE:
            raise ValueError(
                f"nonce_length must be at least {lib.NGP_CID_MIN_NONCE} with workers, "
                f"not {load_balancing.nonce_length}"
            )
        if len(server_id) + load_balancing.nonce_length >= lib.NGP_CID_MAX_BLOCK:
            raise ValueError(
                "server_id and the nonce must have at most 18 bytes with workers"
            )
        layout.config_id = load_balancing.config_id
        layout.nonce_len = load_balancing.nonce_length
        layout.server_id_len = len(server_id)
        memcpy(layout.server_id, PyBytes_AS_STRING(server_id), len(server_id))
        if key is not None:
            layout.has_key = True
            memcpy(layout.key, PyBytes_AS_STRING(key), lib.NGP_CID_KEY_LEN)

    @property
    def length(self):
        """The length of each."""
        return lib.ngp_cid_len(&self._layout)

    def make(self):
        """Return a new connection id."""
        cdef lib.ngtcp2_cid cid

        if lib.ngp_cid_make(&self._layout, &cid) != 0:
            raise MemoryError
        return copy_bytes(cid.data, cid.datalen)

    def read(self, bytes connection_id not None):
        """Return the slot and the generation of the worker that has made an id, or
        ``None`` if none of the group has."""
        cdef uint8_t slot = 0
        cdef uint8_t generation = 0
        cdef int rv = lib.ngp_cid_read(
            &self._layout, <const uint8_t *>PyBytes_AS_STRING(connection_id),
            len(connection_id), &slot, &generation)

        if rv == lib.NGHTTP2_ERR_NOMEM:
            raise MemoryError
        return (slot, generation) if rv == 0 else None


cdef class QuicHeader:
    """The header of a datagram's first packet.

    ``version`` is ``None`` for a packet with a short header.  ``is_initial`` means that
    it may begin a connection; then ``token`` may have bytes, and ``is_retry_token``
    is whether they look like a token of our Retry packets.
    """

    cdef readonly object version
    cdef readonly bint is_initial
    cdef readonly bytes destination_cid
    cdef readonly bytes source_cid
    cdef readonly bytes token
    cdef readonly bint is_retry_token
    # The fields point into _data.
    cdef lib.ngp_quic_header _header
    cdef bytes _data


cdef class Router:
    """Reads headers, and makes the answers to packets without a connection.

    ``secret`` derives the tokens of stateless resets, and ``token_secret``, by default
    the same, authenticates those of Retry packets and NEW_TOKEN frames.
    ``connection_ids`` makes the ids in Retry packets, which otherwise are random.
    Addresses are those of sockets: ``(host, port, ...)``.
    """

    # The versions that we support.
    cdef readonly object versions
    cdef bytes _secret
    cdef bytes _token_secret
    cdef ConnectionIds _connection_ids
    cdef size_t _cid_length
    cdef uint32_t _versions[lib.NGP_QUIC_MAX_VERSIONS]
    cdef size_t _nversions

    def __cinit__(
        self, *, bytes secret not None, connection_id_length, versions,
        bytes token_secret=None, ConnectionIds connection_ids=None,
    ):
        if not 0 <= connection_id_length <= 20:
            raise ValueError("a connection id has at most 20 bytes")
        versions = known_versions(versions)
        if not 0 < len(versions) <= lib.NGP_QUIC_MAX_VERSIONS:
            raise ValueError("there are one to eight versions")
        self.versions = frozenset(versions)
        self._secret = secret
        self._connection_ids = connection_ids
        self._token_secret = secret if token_secret is None else token_secret
        self._cid_length = connection_id_length
        self._nversions = len(versions)
        for i, version in enumerate(versions):
            self._versions[i] = version

    def read_header(self, bytes data not None):
        """Return the :class:`QuicHeader` of a datagram, or ``None`` if it is not
        QUIC."""
        cdef QuicHeader header = QuicHeader.__new__(QuicHeader)
        cdef lib.ngp_quic_header *h = &header._header

        if lib.ngp_quic_header_decode(
            h, <const uint8_t *>PyBytes_AS_STRING(data), len(data),
            self._cid_length,
        ) != 0:
            return None
        header._data = data
        header.version = h.version if h.is_long else None
        header.is_initial = h.is_initial
        header.destination_cid = copy_bytes(h.dcid, h.dcid_len)
        header.source_cid = copy_bytes(h.scid, h.scid_len)
        header.token = copy_bytes(h.token, h.token_len)
        header.is_retry_token = h.is_retry_token
        return header

    def split_run(self, tuple run not None):
        """Split a run of datagrams, ``(data, addr, ecn, segment)``, into runs for one
        connection each; return them, a list."""
        cdef:
            bytes data = run[0]
            const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(data)
            size_t segment = run[3]
            size_t total = len(data)
            size_t first = 0
            size_t end = segment
            list runs = []

        if segment == 0:
            raise ValueError("segment must be positive")
        while end < total:
            if not self._same_target(base + first, base + end, total - end, segment):
                runs.append((data[first:end], run[1], run[2], segment))
                first = end
            end += segment
        if first == 0:
            return [run]
        runs.append((data[first:], run[1], run[2], segment))
        return runs

    cdef bint _same_target(
        self, const uint8_t *a, const uint8_t *b, size_t b_len, size_t segment
    ):
        """Return whether two packets with short headers have the same connection id."""
        return (
            b_len > self._cid_length
            and segment > self._cid_length
            and not (a[0] | b[0]) & 0x80
            and memcmp(a + 1, b + 1, self._cid_length) == 0
        )

    def write_version_negotiation(self, QuicHeader header not None):
        """Return the answer to a packet of a version that we do not support (RFC 9000,
        6.1)."""
        cdef uint8_t packet[lib.NGP_QUIC_PACKET_MAX]

        return copy_bytes(packet, lib.ngp_quic_write_version_negotiation(
            packet, &header._header, self._versions, self._nversions))

    def write_retry(self, QuicHeader header not None, addr, now):
        """Return a Retry packet, so that a client proves its address (RFC 9000,
        8.1.2)."""
        cdef:
            uint8_t packet[lib.NGP_QUIC_PACKET_MAX]
            lib.ngp_quic_addr packed

        if not pack_address(addr, &packed):
            return b""
        return copy_bytes(packet, lib.ngp_quic_write_retry(
            packet, &header._header, &packed,
            NULL if self._connection_ids is None else &self._connection_ids._layout,
            <const uint8_t *>PyBytes_AS_STRING(self._token_secret),
            len(self._token_secret), to_ns(now)))

    def verify_retry(self, QuicHeader header not None, addr, now):
        """Return the destination connection id of the client's first packet, or
        ``None`` if the token is not one of ours for this address."""
        cdef lib.ngtcp2_cid odcid
        cdef lib.ngp_quic_addr packed

        if not pack_address(addr, &packed) or lib.ngp_quic_verify_retry(
            &odcid, &header._header, &packed,
            <const uint8_t *>PyBytes_AS_STRING(self._token_secret),
            len(self._token_secret), RETRY_TIMEOUT, to_ns(now),
        ) != 0:
            return None
        return copy_bytes(odcid.data, odcid.datalen)

    def write_token(self, addr, now):
        """Make a token for a client's later connections (RFC 9000, 8.1.3).

        ``now`` is of a clock that continues when the server restarts.
        """
        cdef:
            uint8_t token[lib.NGP_QUIC_PACKET_MAX]
            lib.ngp_quic_addr packed

        if not pack_address(addr, &packed):
            return b""
        return copy_bytes(token, lib.ngp_quic_write_token(
            token, &packed, <const uint8_t *>PyBytes_AS_STRING(self._token_secret),
            len(self._token_secret), to_ns(now)))

    def verify_token(self, QuicHeader header not None, addr, now):
        """Return whether an Initial packet has such a token, made for its sender."""
        cdef lib.ngp_quic_addr packed

        return pack_address(addr, &packed) and lib.ngp_quic_verify_token(
            &header._header, &packed,
            <const uint8_t *>PyBytes_AS_STRING(self._token_secret),
            len(self._token_secret), TOKEN_TIMEOUT, to_ns(now)) == 0

    def write_refusal(self, QuicHeader header not None, error_code):
        """Return the refusal of a connection, with a transport error."""
        cdef uint8_t packet[lib.NGP_QUIC_PACKET_MAX]

        return copy_bytes(packet, lib.ngp_quic_write_refusal(
            packet, &header._header, error_code))

    def write_stateless_reset(self, QuicHeader header not None, size_t received):
        """Return a stateless reset for a packet of a connection that is gone (RFC 9000,
        10.3)."""
        cdef uint8_t packet[lib.NGP_QUIC_PACKET_MAX]

        return copy_bytes(packet, lib.ngp_quic_write_stateless_reset(
            packet, &header._header,
            <const uint8_t *>PyBytes_AS_STRING(self._secret), len(self._secret),
            received))
