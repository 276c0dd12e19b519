/*
 * Runs seeds of the simulator: sim_quic [FIRST [COUNT]], or sim_quic -v SEED to
 * see one run.  SPDX-License-Identifier: MIT
 */
#include "quic_sim.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long one seed may take, in seconds of the real clock. */
#define PATIENCE 60

static const char *program;
static uint64_t current;

/* Says how to run the seed alone; fit for a signal handler. */
static void tell_seed(void) {
  char line[512];
  int n = snprintf(line, sizeof(line), "run it alone: %s -v %" PRIu64 "\n",
                   program, current);

  if (n > 0) {
    (void)!write(STDERR_FILENO, line, (size_t)n);
  }
}

static void die(int signal_number) {
  static const char text[] = "sim_quic dies, or does not come back; ";

  (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
  tell_seed();
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_set_death_callback(void (*callback)(void));
#endif

static void watch(void) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_set_death_callback(tell_seed);
#else
  signal(SIGSEGV, die);
#endif
  signal(SIGABRT, die);
  signal(SIGFPE, die);
  signal(SIGALRM, die);
}

/* Whether there was enough of everything, in so many runs. */
static int check_counts(const sim_counts *c) {
  if (c->runs < 500) {
    return 0;
  }
  if (c->complete * 10 < c->runs * 7 || !c->retried || !c->negotiated ||
      c->early_accepted * 2 < c->early_rejected || !c->early_rejected ||
      !c->moved) {
    printf("the runs do not meet what they are to meet\n");
    return -1;
  }
  return 0;
}

int main(int argc, char **argv) {
  static sim_shared shared;
  sim_counts counts = {0};
  int verbose = argc > 2 && strcmp(argv[1], "-v") == 0;
  uint64_t first =
      argc > 1 + verbose ? strtoull(argv[1 + verbose], NULL, 0) : 0;
  uint64_t n = verbose ? 1 : argc > 2 ? strtoull(argv[2], NULL, 0) : 1000;
  int failures = 0;

  program = argv[0];
  setvbuf(stdout, NULL, _IOLBF, 0);
  current = first;
  watch();
  if (sim_setup(&shared) != 0) {
    printf("the first connections fail\n");
    return 1;
  }
  for (; n; --n, ++current) {
    alarm(PATIENCE);
    if (sim_run(&shared, current, verbose, &counts) != 0) {
      fflush(stdout);
      tell_seed();
      if (++failures == 10) {
        break;
      }
    }
  }
  alarm(0);
  sim_teardown(&shared);
  printf("%" PRIu64 " runs: %" PRIu64 " complete, %" PRIu64 " idle, %" PRIu64
         " retried, %" PRIu64 " negotiated a version, %" PRIu64
         " with early data, %" PRIu64 " without it, %" PRIu64 " moved; %" PRIu64
         " datagrams, %" PRIu64 " bytes\n",
         counts.runs, counts.complete, counts.idle, counts.retried,
         counts.negotiated, counts.early_accepted, counts.early_rejected,
         counts.moved, counts.datagrams, counts.bytes);
  return failures || check_counts(&counts) != 0;
}
