/* SPDX-License-Identifier: MIT */

/* For struct ucred and its like in the headers below, which C99 hides. */
#define _GNU_SOURCE

#include "ngp_udp.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* Linux's numbers, which older C libraries do not name. */
#ifdef __linux__
#  ifndef UDP_SEGMENT
#    define UDP_SEGMENT 103
#  endif
#  ifndef UDP_GRO
#    define UDP_GRO 104
#  endif
#endif

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

ptrdiff_t ngp_udp_recv(int fd, uint8_t *buf, size_t len,
                       struct sockaddr_storage *addr, socklen_t *paddrlen,
                       size_t *psegment) {
  struct iovec iov = {.iov_base = buf, .iov_len = len};
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
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
#ifdef __linux__
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg); cmsg;
       cmsg = CMSG_NXTHDR(&msg, cmsg)) {
    if (cmsg->cmsg_level == IPPROTO_UDP && cmsg->cmsg_type == UDP_GRO) {
      int size;

      memcpy(&size, CMSG_DATA(cmsg), sizeof(size));
      if (size > 0) {
        *psegment = (size_t)size;
      }
    }
  }
#endif
  return n;
}

int ngp_udp_send(int fd, struct iovec *iov, size_t n, size_t segment,
                 const struct sockaddr *addr, socklen_t addrlen) {
  struct msghdr msg = {.msg_name = (void *)addr,
                       .msg_namelen = addrlen,
                       .msg_iov = iov,
                       .msg_iovlen = n};
#ifdef __linux__
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
  } control;

  if (n > 1) {
    uint16_t size = (uint16_t)segment;
    struct cmsghdr *cmsg;

    memset(&control, 0, sizeof(control));
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof(control.bytes);
    cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = IPPROTO_UDP;
    cmsg->cmsg_type = UDP_SEGMENT;
    cmsg->cmsg_len = CMSG_LEN(sizeof(size));
    memcpy(CMSG_DATA(cmsg), &size, sizeof(size));
  }
#else
  (void)segment;
#endif
  return sendmsg(fd, &msg, 0) < 0 ? -1 : 0;
}
