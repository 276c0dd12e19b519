/* SPDX-License-Identifier: MIT */
/*
 * The limit that a binding of nghttp2's HPACK coder can reach: the same
 * coder, called from C.  benchmarks/hpack_coding.py builds and runs it.
 *
 * Usage: limit HEADERS ROUNDS
 *
 * HEADERS holds header lists: a field is a line "name<TAB>value", a list
 * ends with an empty line.  It prints the best time of ROUNDS passes over
 * all lists, in nanoseconds for each list: to encode, and to decode.
 */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <nghttp2/nghttp2.h>

#define MAX_LISTS 1024
#define MAX_FIELDS 16384
#define MAX_BLOCK 4096

typedef struct {
  nghttp2_nv *nva;
  size_t nvlen;
  uint8_t block[MAX_BLOCK];
  size_t blocklen;
} header_list;

static header_list lists[MAX_LISTS];
static nghttp2_nv fields[MAX_FIELDS];
static size_t num_lists;
/* What the loops find out, kept so that no compiler drops them. */
static volatile size_t seen;

static void die(const char *what) {
  fprintf(stderr, "limit: %s\n", what);
  exit(1);
}

static char *read_file(const char *path, size_t *plen) {
  FILE *file = fopen(path, "rb");
  char *text;
  long len;

  if (file == NULL || fseek(file, 0, SEEK_END) != 0 ||
      (len = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) != 0) {
    die("cannot read the header lists");
  }
  text = malloc((size_t)len + 1);
  if (text == NULL || fread(text, 1, (size_t)len, file) != (size_t)len) {
    die("cannot read the header lists");
  }
  fclose(file);
  *plen = (size_t)len;
  return text;
}

/* The fields point into |text|, which lives as long as the program. */
static void parse(char *text, size_t len) {
  char *end = text + len;
  size_t num_fields = 0;
  header_list *list = NULL;

  while (text < end) {
    char *eol = memchr(text, '\n', (size_t)(end - text));
    char *tab;

    if (eol == NULL) {
      die("the last line has no end");
    }
    if (eol == text) {
      list = NULL;
      ++text;
      continue;
    }
    if (list == NULL) {
      if (num_lists == MAX_LISTS) {
        die("too many lists");
      }
      list = &lists[num_lists++];
      list->nva = &fields[num_fields];
    }
    tab = memchr(text, '\t', (size_t)(eol - text));
    if (tab == NULL || num_fields == MAX_FIELDS) {
      die("a line has no tab, or there are too many");
    }
    fields[num_fields++] = (nghttp2_nv){
        .name = (uint8_t *)text,
        .namelen = (size_t)(tab - text),
        .value = (uint8_t *)tab + 1,
        .valuelen = (size_t)(eol - tab - 1),
        .flags = NGHTTP2_NV_FLAG_NONE,
    };
    ++list->nvlen;
    text = eol + 1;
  }
}

static void encode(nghttp2_hd_deflater *deflater) {
  size_t i;

  for (i = 0; i < num_lists; ++i) {
    header_list *list = &lists[i];
    ssize_t len;

    if (nghttp2_hd_deflate_bound(deflater, list->nva, list->nvlen) >
        MAX_BLOCK) {
      die("a list is too long");
    }
    len = nghttp2_hd_deflate_hd(deflater, list->block, MAX_BLOCK, list->nva,
                                list->nvlen);
    if (len < 0) {
      die(nghttp2_strerror((int)len));
    }
    list->blocklen = (size_t)len;
  }
}

static void decode(nghttp2_hd_inflater *inflater) {
  size_t i;

  for (i = 0; i < num_lists; ++i) {
    const uint8_t *data = lists[i].block;
    size_t len = lists[i].blocklen;
    int flags;

    do {
      nghttp2_nv nv;
      ssize_t n;

      flags = NGHTTP2_HD_INFLATE_NONE;
      n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, data, len, 1);
      if (n < 0) {
        die(nghttp2_strerror((int)n));
      }
      data += n;
      len -= (size_t)n;
      if (flags & NGHTTP2_HD_INFLATE_EMIT) {
        seen += nv.namelen + nv.valuelen;
      }
    } while (!(flags & NGHTTP2_HD_INFLATE_FINAL));
    nghttp2_hd_inflate_end_headers(inflater);
  }
}

static double now(void) {
  struct timespec ts;

  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

int main(int argc, char **argv) {
  nghttp2_hd_deflater *deflater;
  nghttp2_hd_inflater *inflater;
  double best_encode = 1e18, best_decode = 1e18;
  char *text;
  size_t len;
  long rounds;

  if (argc != 3 || (rounds = strtol(argv[2], NULL, 10)) < 1) {
    die("usage: limit HEADERS ROUNDS");
  }
  text = read_file(argv[1], &len);
  parse(text, len);
  if (num_lists == 0 || nghttp2_hd_deflate_new(&deflater, 4096) != 0 ||
      nghttp2_hd_inflate_new(&inflater) != 0) {
    die("no lists, or no memory");
  }
  /* The dynamic tables live on, as they do in a connection. */
  while (rounds-- > 0) {
    double start = now(), middle, end;

    encode(deflater);
    middle = now();
    decode(inflater);
    end = now();
    if (middle - start < best_encode) {
      best_encode = middle - start;
    }
    if (end - middle < best_decode) {
      best_decode = end - middle;
    }
  }
  printf("%.1f %.1f\n", best_encode / (double)num_lists,
         best_decode / (double)num_lists);
  nghttp2_hd_inflate_del(inflater);
  nghttp2_hd_deflate_del(deflater);
  free(text);
  return 0;
}
