/* SPDX-License-Identifier: MIT
 *
 * What counts.py tells callgrind, from between two parts of a program.
 */
#include <valgrind/callgrind.h>

void count_begin(void);
void count_end(const char *name);

/* Count the instructions from here. */
void count_begin(void) {
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
}

/* Write how many they were, with the name. */
void count_end(const char *name) {
  CALLGRIND_DUMP_STATS_AT(name);
  CALLGRIND_STOP_INSTRUMENTATION;
}
