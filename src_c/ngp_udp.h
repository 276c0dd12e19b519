/*
 * UDP with few system calls: the kernel joins and cuts runs of datagrams (GRO
 * and GSO) where it can.  The only file that touches sockets.
 * SPDX-License-Identifier: MIT
 */
#ifndef NGP_UDP_H
#define NGP_UDP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* A joined run is at most as long as an IP datagram. */
#define NGP_UDP_BUFFER_LEN 65536

/* The most datagrams (UDP_MAX_SEGMENTS) and bytes of a run that the kernel
   splits. */
#define NGP_UDP_MAX_SEGMENTS 64
#define NGP_UDP_MAX_RUN 65000

/*
 * ngp_udp_enable_gro asks the kernel to join runs of received datagrams.  It
 * returns nonzero if the kernel does so.
 */
int ngp_udp_enable_gro(int fd);

/* ngp_udp_has_gso is nonzero if the kernel splits runs that are sent on
   |fd|. */
int ngp_udp_has_gso(int fd);

/*
 * ngp_udp_enable_ecn asks the kernel for the ECN bits of received datagrams;
 * |family| is the socket's.  It returns nonzero if the kernel reports them for
 * every family that the socket receives.
 */
int ngp_udp_enable_ecn(int fd, int family);

/*
 * ngp_udp_local is an address of this machine, IPv6 or IPv4 mapped to IPv6;
 * |ip| is zero if it is not known.  |scope| is the interface of a link-local
 * address, or 0.
 */
typedef struct ngp_udp_local {
  uint8_t ip[16];
  uint32_t scope;
} ngp_udp_local;

/*
 * ngp_udp_enable_local asks the kernel to which of our addresses each datagram
 * came; |family| is the socket's.  It returns nonzero if the kernel reports it.
 */
int ngp_udp_enable_local(int fd, int family);

/*
 * ngp_udp_forbid_fragments prevents fragmentation (RFC 9000, 14): a datagram
 * longer than the path's MTU fails with EMSGSIZE, or is lost. It returns
 * nonzero if the system does so.
 */
int ngp_udp_forbid_fragments(int fd, int family);

/*
 * ngp_udp_hash hashes |len| bytes, at least 4, with the key |mask|.  It is no
 * cryptographic hash: the kernel has to compute it by a program of classic BPF.
 */
uint32_t ngp_udp_hash(const uint32_t *mask, const uint8_t *data, size_t len);

/*
 * ngp_udp_steer asks the kernel to choose the socket of a SO_REUSEPORT group,
 * of which |fd| is one, by the QUIC connection id of each datagram.  The
 * sockets have the order in which they were bound; those from |size| on are
 * only chosen for what is not QUIC.
 *
 * A connection id of |cid_len| bytes, 8 to 20, has the number of its socket in
 * the last byte, xor the hash of the others.  Other numbers, and the ids that
 * clients choose, are spread by their hash.  It returns nonzero if the kernel
 * does so; no privilege is needed.
 */
int ngp_udp_steer(int fd, const uint32_t *mask, size_t cid_len, uint32_t size);

/*
 * ngp_udp_recv receives a datagram, or a run of them from one address to one of
 * ours, |*local|, into |buf|.  All but the last have |*psegment| bytes, and all
 * have |*pecn| for the ECN bits of their IP headers (RFC 3168), 0 if they are
 * not known.
 *
 * This function returns the number of bytes, or -1 with errno set.
 */
ptrdiff_t ngp_udp_recv(int fd, uint8_t *buf, size_t len,
                       struct sockaddr_storage *addr, socklen_t *paddrlen,
                       ngp_udp_local *local, size_t *psegment, uint8_t *pecn);

/*
 * ngp_udp_send sends |len| bytes at |data| to one address, as a run of
 * datagrams of |segment| bytes, of which the last may have fewer.  They are
 * sent from |local|, or from an address that the system chooses if it is zero.
 * |ecn| sets the ECN bits of their IP headers.
 *
 * This function returns 0 if it succeeds, or -1 with errno set.
 */
int ngp_udp_send(int fd, const uint8_t *data, size_t len, size_t segment,
                 const struct sockaddr *addr, socklen_t addrlen,
                 const ngp_udp_local *local, uint8_t ecn);

#endif /* NGP_UDP_H */
