/*
 * For compilers without libFuzzer: runs the files given, or with -seconds=N
 * changed copies of them for that long.  SPDX-License-Identifier: MIT
 */
#include <time.h>

#include "ops.h"

#define MAX_SIZE 4096

static uint8_t seeds[256][MAX_SIZE];
static size_t sizes[256];
static size_t nseeds;

static uint64_t random_state = 0x9e3779b97f4a7c15U;

static uint32_t next_random(void) {
  random_state = random_state * 6364136223846793005U + 1442695040888963407U;
  return (uint32_t)(random_state >> 33);
}

static void read_seed(const char *path) {
  FILE *file = fopen(path, "rb");

  if (!file || nseeds == sizeof(sizes) / sizeof(*sizes)) {
    fprintf(stderr, "%s: cannot be read\n", path);
    exit(1);
  }
  sizes[nseeds] = fread(seeds[nseeds], 1, MAX_SIZE, file);
  fclose(file);
  LLVMFuzzerTestOneInput(seeds[nseeds], sizes[nseeds]);
  ++nseeds;
}

/* Runs one seed with some bytes changed, dropped or doubled. */
static void run_changed(void) {
  static uint8_t copy[MAX_SIZE];
  size_t seed = next_random() % nseeds;
  size_t size = sizes[seed];
  uint32_t changes = 1 + next_random() % 16;

  memcpy(copy, seeds[seed], size);
  while (changes-- && size) {
    size_t at = next_random() % size;

    switch (next_random() % 3) {
    case 0:
      copy[at] = (uint8_t)next_random();
      break;
    case 1:
      memmove(copy + at, copy + at + 1, size - at - 1);
      --size;
      break;
    default:
      if (size < MAX_SIZE) {
        memmove(copy + at + 1, copy + at, size - at);
        ++size;
      }
      break;
    }
  }
  LLVMFuzzerTestOneInput(copy, size);
}

int main(int argc, char **argv) {
  double seconds = 0;
  clock_t start = clock();
  int i;

  for (i = 1; i < argc; ++i) {
    if (strncmp(argv[i], "-seconds=", 9) == 0) {
      seconds = atof(argv[i] + 9);
    } else {
      read_seed(argv[i]);
    }
  }
  while (nseeds && (double)(clock() - start) / CLOCKS_PER_SEC < seconds) {
    run_changed();
  }
  return 0;
}
