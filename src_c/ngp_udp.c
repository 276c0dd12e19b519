/* SPDX-License-Identifier: MIT */

/* For struct ucred and similar types in the headers below, which C99 hides. */
#define _GNU_SOURCE
/* For IPV6_PKTINFO on macOS. */
#define __APPLE_USE_RFC_3542

#include "ngp_udp.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

#ifdef __linux__
#  include <linux/filter.h>
#endif

/* Linux's numbers, for which older C libraries have no names. */
#ifdef __linux__
#  ifndef UDP_SEGMENT
#    define UDP_SEGMENT 103
#  endif
#  ifndef UDP_GRO
#    define UDP_GRO 104
#  endif
#endif

/* RFC 3168, 5: the low two bits of the octet. */
#define ECN_MASK 3

/* Room for the control messages of a datagram: a run's segment size, the octet
   with the ECN bits and our address, which may come twice on a socket of both
   families.
 */
typedef union control_buf {
  struct cmsghdr align;
  char bytes[3 * CMSG_SPACE(sizeof(int)) +
             2 * CMSG_SPACE(sizeof(struct in6_pktinfo))];
} control_buf;

int ngp_udp_enable_gro(int fd) {
#ifdef __linux__
  int on = 1;

  return setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) == 0;
#else
  (void)fd;
  return 0;
#endif
}

int ngp_udp_has_gso(int fd) {
#ifdef __linux__
  int size = 0;
  socklen_t len = sizeof(size);

  return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, &len) == 0;
#else
  (void)fd;
  return 0;
#endif
}

int ngp_udp_enable_ecn(int fd, int family) {
  int on = 1;

  if (family == AF_INET) {
    return setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on)) == 0;
  }
  /* A socket for IPv6 only, by its setting or the system's, may refuse the
     option of IPv4. */
  (void)setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
  return setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on)) == 0;
}

int ngp_udp_enable_local(int fd, int family) {
  int on = 1;

  if (family == AF_INET) {
#ifdef IP_PKTINFO
    return setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on)) == 0;
#else
    return 0;
#endif
  }
  /* For IPv4 it returns a mapped address. */
  return setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on)) == 0;
}

int ngp_udp_forbid_fragments(int fd, int family) {
#ifdef IP_PMTUDISC_PROBE
  /* The kernel's knowledge of the path is ignored, because ICMP messages can be
     forged, and QUIC probes by itself. */
  int v4 = IP_PMTUDISC_PROBE;
  int v6 = IPV6_PMTUDISC_PROBE;
  int done = setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof(v4)) == 0;

  if (family == AF_INET) {
    return done;
  }
  /* A socket for IPv6 only may refuse the option of IPv4. */
  return setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof(v6)) == 0;
#elif defined(IP_DONTFRAG)
  int on = 1;
  int done = setsockopt(fd, IPPROTO_IP, IP_DONTFRAG, &on, sizeof(on)) == 0;

  if (family == AF_INET) {
    return done;
  }
  return setsockopt(fd, IPPROTO_IPV6, IPV6_DONTFRAG, &on, sizeof(on)) == 0;
#else
  (void)fd;
  (void)family;
  return 0;
#endif
}

/* The shift that mixes the high bits of a product into the low ones. */
#define HASH_SHIFT 15

uint32_t ngp_udp_hash(const uint32_t *mask, const uint8_t *data, size_t len) {
  uint32_t hash = mask[0];
  size_t i;

  for (i = 0; i < len; i += 4) {
    /* The last four bytes may overlap with those before. */
    const uint8_t *p = data + (i + 4 > len ? len - 4 : i);
    uint32_t word = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
                    (uint32_t)p[2] << 8 | (uint32_t)p[3];

    hash = (hash ^ word) * mask[1];
    hash ^= hash >> HASH_SHIFT;
  }
  return hash;
}

#ifdef SO_ATTACH_REUSEPORT_CBPF

/* RFC 8999, 5.1: where the headers of any version have the connection id, and
   where a long one has its length. */
#  define SHORT_CID 1
#  define LONG_CID_LEN 5
#  define LONG_CID 6

/* RFC 9000, 7.2: the least length of an id that a client chooses. */
#  define MIN_CLIENT_CID 8

/* The words of the program's memory. */
#  define MEM_HASH 0
#  define MEM_CID 1

#  define MAX_PROGRAM 160

typedef struct program {
  struct sock_filter code[MAX_PROGRAM];
  unsigned short len;
} program;

/* Appends an instruction; a jump skips |jt| or |jf| others. */
static void add(program *p, unsigned code, uint32_t k, unsigned jt,
                unsigned jf) {
  p->code[p->len++] = (struct sock_filter){
      .code = (uint16_t)code, .jt = (uint8_t)jt, .jf = (uint8_t)jf, .k = k};
}

static void add_return(program *p) { add(p, BPF_RET | BPF_A, 0, 0, 0); }

/* An index that no socket has: the kernel spreads by the addresses. */
static void add_decline(program *p) {
  add(p, BPF_RET | BPF_K, UINT32_MAX, 0, 0);
}

static void add_set_cid(program *p, uint32_t offset) {
  add(p, BPF_LDX | BPF_IMM, offset, 0, 0);
  add(p, BPF_STX, MEM_CID, 0, 0);
}

/* What ngp_udp_hash() does, for the first |len| bytes of the connection id; the
   result is in A and in the memory. */
static void add_hash(program *p, const uint32_t *mask, size_t len) {
  size_t i;

  add(p, BPF_LD | BPF_IMM, mask[0], 0, 0);
  add(p, BPF_ST, MEM_HASH, 0, 0);
  for (i = 0; i < len; i += 4) {
    size_t offset = i + 4 > len ? len - 4 : i;

    add(p, BPF_LDX | BPF_MEM, MEM_CID, 0, 0);
    add(p, BPF_LD | BPF_W | BPF_IND, (uint32_t)offset, 0, 0);
    add(p, BPF_LDX | BPF_MEM, MEM_HASH, 0, 0);
    add(p, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    add(p, BPF_ALU | BPF_MUL | BPF_K, mask[1], 0, 0);
    add(p, BPF_ST, MEM_HASH, 0, 0);
    add(p, BPF_ALU | BPF_RSH | BPF_K, HASH_SHIFT, 0, 0);
    add(p, BPF_LDX | BPF_MEM, MEM_HASH, 0, 0);
    add(p, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    add(p, BPF_ST, MEM_HASH, 0, 0);
  }
}

static void add_spread(program *p, uint32_t size) {
  add(p, BPF_ALU | BPF_MOD | BPF_K, size, 0, 0);
  add_return(p);
}

static void write_program(program *p, const uint32_t *mask, uint32_t cid_len,
                          uint32_t size) {
  program foreign = {.len = 0};

  add_set_cid(&foreign, LONG_CID);
  add_hash(&foreign, mask, MIN_CLIENT_CID);
  add_spread(&foreign, size);

  p->len = 0;
  add(p, BPF_LD | BPF_W | BPF_LEN, 0, 0, 0);
  add(p, BPF_JMP | BPF_JGE | BPF_K, SHORT_CID + cid_len, 1, 0);
  add_decline(p);
  add(p, BPF_LD | BPF_B | BPF_ABS, 0, 0, 0);
  add(p, BPF_JMP | BPF_JSET | BPF_K, 0x80, 3, 0);
  add_set_cid(p, SHORT_CID);
  /* Past the long header: 9 instructions, and those for a foreign id. */
  add(p, BPF_JMP | BPF_JA, 9U + foreign.len, 0, 0);
  add(p, BPF_LD | BPF_W | BPF_LEN, 0, 0, 0);
  add(p, BPF_JMP | BPF_JGE | BPF_K, LONG_CID + cid_len, 1, 0);
  add_decline(p);
  add(p, BPF_LD | BPF_B | BPF_ABS, LONG_CID_LEN, 0, 0);
  add(p, BPF_JMP | BPF_JEQ | BPF_K, cid_len, foreign.len + 2U, 0);
  add(p, BPF_JMP | BPF_JGE | BPF_K, MIN_CLIENT_CID, 1, 0);
  add_decline(p);
  memcpy(p->code + p->len, foreign.code, foreign.len * sizeof(*foreign.code));
  p->len = (unsigned short)(p->len + foreign.len);
  add_set_cid(p, LONG_CID);
  /* An id of our length. */
  add_hash(p, mask, cid_len - 1);
  add(p, BPF_LDX | BPF_MEM, MEM_CID, 0, 0);
  add(p, BPF_LD | BPF_B | BPF_IND, cid_len - 1, 0, 0);
  add(p, BPF_LDX | BPF_MEM, MEM_HASH, 0, 0);
  add(p, BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
  add(p, BPF_ALU | BPF_AND | BPF_K, 0xff, 0, 0);
  add(p, BPF_JMP | BPF_JGE | BPF_K, size, 1, 0);
  add_return(p);
  add(p, BPF_LD | BPF_MEM, MEM_HASH, 0, 0);
  add_spread(p, size);
}

#endif /* SO_ATTACH_REUSEPORT_CBPF */

int ngp_udp_steer(int fd, const uint32_t *mask, size_t cid_len, uint32_t size) {
#ifdef SO_ATTACH_REUSEPORT_CBPF
  program p;
  struct sock_fprog prog = {.filter = p.code};

  write_program(&p, mask, (uint32_t)cid_len, size);
  prog.len = p.len;
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &prog,
                    sizeof(prog)) == 0;
#else
  (void)fd;
  (void)mask;
  (void)cid_len;
  (void)size;
  return 0;
#endif
}

/* RFC 4291, 2.5.5.2. */
static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static void read_local(ngp_udp_local *local, const struct cmsghdr *cmsg) {
#ifdef IP_PKTINFO
  if (cmsg->cmsg_level == IPPROTO_IP && cmsg->cmsg_type == IP_PKTINFO) {
    struct in_pktinfo info;

    memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
    memcpy(local->ip, mapped, sizeof(mapped));
    /* Not ipi_addr, which may be a broadcast address. */
    memcpy(local->ip + sizeof(mapped), &info.ipi_spec_dst, 4);
  }
#endif
  if (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
    struct in6_pktinfo info;

    memcpy(&info, CMSG_DATA(cmsg), sizeof(info));
    if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) {
      return;
    }
    memcpy(local->ip, &info.ipi6_addr, sizeof(local->ip));
    if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
      local->scope = (uint32_t)info.ipi6_ifindex;
    }
  }
}

/* The octet that has the ECN bits is a byte or an int, by system and family. */
static uint8_t read_ecn(const struct cmsghdr *cmsg) {
  int value;

  if (cmsg->cmsg_len < CMSG_LEN(sizeof(value))) {
    return *(const uint8_t *)CMSG_DATA(cmsg) & ECN_MASK;
  }
  memcpy(&value, CMSG_DATA(cmsg), sizeof(value));
  return (uint8_t)(value & ECN_MASK);
}

ptrdiff_t ngp_udp_recv(int fd, uint8_t *buf, size_t len,
                       struct sockaddr_storage *addr, socklen_t *paddrlen,
                       ngp_udp_local *local, size_t *psegment, uint8_t *pecn) {
  struct iovec iov = {.iov_base = buf, .iov_len = len};
  control_buf control;
  struct msghdr msg = {.msg_name = addr,
                       .msg_namelen = sizeof(*addr),
                       .msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof(control.bytes)};
  ptrdiff_t n = recvmsg(fd, &msg, 0);

  if (n < 0) {
    return -1;
  }
  *paddrlen = msg.msg_namelen;
  *psegment = (size_t)n;
  *pecn = 0;
  memset(local, 0, sizeof(*local));
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg;
       cmsg = CMSG_NXTHDR(&msg, cmsg)) {
    if ((cmsg->cmsg_level == IPPROTO_IP &&
         (cmsg->cmsg_type == IP_TOS || cmsg->cmsg_type == IP_RECVTOS)) ||
        (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_TCLASS)) {
      *pecn = read_ecn(cmsg);
    }
    read_local(local, cmsg);
#ifdef __linux__
    if (cmsg->cmsg_level == IPPROTO_UDP && cmsg->cmsg_type == UDP_GRO) {
      int size;

      memcpy(&size, CMSG_DATA(cmsg), sizeof(size));
      if (size > 0) {
        *psegment = (size_t)size;
      }
    }
#endif
  }
  return n;
}

static void add_control(struct msghdr *msg, control_buf *control, int level,
                        int type, const void *data, size_t len) {
  struct cmsghdr *cmsg =
      (struct cmsghdr *)(control->bytes + msg->msg_controllen);

  msg->msg_control = control->bytes;
  msg->msg_controllen += CMSG_SPACE(len);
  cmsg->cmsg_level = level;
  cmsg->cmsg_type = type;
  cmsg->cmsg_len = CMSG_LEN(len);
  memcpy(CMSG_DATA(cmsg), data, len);
}

/* On a socket of both families an IPv4 packet has IPv4's octet. */
static int is_ipv4(const struct sockaddr *addr) {
  return addr->sa_family == AF_INET ||
         IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

static void add_local(struct msghdr *msg, control_buf *control,
                      const struct sockaddr *addr, const ngp_udp_local *local) {
  static const uint8_t unknown[sizeof(local->ip)];

  if (memcmp(local->ip, unknown, sizeof(unknown)) == 0) {
    return;
  }
  if (is_ipv4(addr)) {
#ifdef IP_PKTINFO
    struct in_pktinfo info;

    memset(&info, 0, sizeof(info));
    memcpy(&info.ipi_spec_dst, local->ip + sizeof(mapped), 4);
    add_control(msg, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
#endif
  } else {
    struct in6_pktinfo info;

    memset(&info, 0, sizeof(info));
    memcpy(&info.ipi6_addr, local->ip, sizeof(local->ip));
    info.ipi6_ifindex = local->scope;
    add_control(msg, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
  }
}

int ngp_udp_send(int fd, const uint8_t *data, size_t len, size_t segment,
                 const struct sockaddr *addr, socklen_t addrlen,
                 const ngp_udp_local *local, uint8_t ecn) {
  struct iovec iov = {.iov_base = (void *)data, .iov_len = len};
  struct msghdr msg = {.msg_name = (void *)addr,
                       .msg_namelen = addrlen,
                       .msg_iov = &iov,
                       .msg_iovlen = 1};
  control_buf control;

  /* The kernel reads the padding between control messages, too. */
  memset(&control, 0, sizeof(control));
#ifdef __linux__
  if (len > segment) {
    uint16_t size = (uint16_t)segment;

    add_control(&msg, &control, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size));
  }
#else
  (void)segment;
#endif
  if (ecn) {
    int value = ecn;

    if (is_ipv4(addr)) {
      add_control(&msg, &control, IPPROTO_IP, IP_TOS, &value, sizeof(value));
    } else {
      add_control(&msg, &control, IPPROTO_IPV6, IPV6_TCLASS, &value,
                  sizeof(value));
    }
  }
  add_local(&msg, &control, addr, local);
  return sendmsg(fd, &msg, 0) < 0 ? -1 : 0;
}
