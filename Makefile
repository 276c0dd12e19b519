# Every command of the project.  CI calls these and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
CMAKE := $(BIN)/cmake
# Runs a command silently, unless VERBOSE is set.
STEP := vendor/step
FUZZERS = h2_recv h2_pair h3_recv qpack quic_api quic_recv
FUZZ_SECONDS ?= 60
TEST_GROUP = test
BENCHMARKS = hpack_coding exchange server client httpx_transport streams soak idle h3 quic asgi
# The tests that start no other program: ARGS='$(ALONE)'.
ALONE = $(foreach name,*_chromium *_examples *_interop *_nginx *_peers *_soak test_build test_cli_* test_docs* test_moving_* test_quic_gtls test_quic_qh3,--ignore-glob='*/$(name).py')
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run test test-installed test-all test-others test-newest test-freethreaded build test-c asan fuzz lint types docs bench counts charts wheel wheels test-wheel clean

# PORT= is the page's port: without it 8443, or another one if that is in use.
run: build
	@exec $(BIN)/python examples/hello.py $(PORT)

test: deps-test test-installed

# Without a look at the programs that tests start: for those that start none, ARGS='$(ALONE)'.
test-installed: build
	$(PIP) install --group $(TEST_GROUP)
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile $(ARGS)

test-all: test test-others

# On the Pythons beside the one in use, each with an environment of its own; WHICH=newest: on that one.
# Without optimisation they are built in a third of the time, and the C code's assertions are tried.
test-others:
	@set -e; for python in $$(.ci/interpreters $(WHICH)); do \
	  echo "Tests on $$python"; \
	  NGHTTP2PY_DEBUG=1 $(MAKE) test PYTHON=$$python VENV=.venv-$$($$python -V | cut -c 8-11); \
	done

# On Debian sid's C libraries and Python, the tests that start no other program.
test-newest:
	.ci/newest test-installed ARGS='$$(ALONE)'

# On a CPython without the GIL, the same tests.
test-freethreaded:
	.ci/freethreaded test-installed TEST_GROUP=test-freethreaded ARGS='$$(ALONE)'

build: $(VENV)/ready
	@$(STEP) "Compile and install nghttp2py" $(PIP) install --no-build-isolation --editable '.[asgi,speed]'

test-c: SANITIZE = OFF
asan: SANITIZE = ON
test-c asan: deps-test $(VENV)/ready
	$(CMAKE) -S . -B build/$@ -G Ninja -DCMAKE_BUILD_TYPE=Debug -DNGP_TESTS=ON -DNGP_WERROR=ON -DNGP_SANITIZE=$(SANITIZE)
	$(CMAKE) --build build/$@
	$(BIN)/ctest --test-dir build/$@ --output-on-failure --parallel $$(nproc)

fuzz: deps-fuzz $(VENV)/ready
	CC=clang $(CMAKE) -S . -B build/fuzz -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DNGP_FUZZ=ON -DNGP_SANITIZE=ON
	$(CMAKE) --build build/fuzz
	@set -e; for name in $(FUZZERS); do \
	  mkdir -p build/fuzz/found/$$name; \
	  build/fuzz/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$name- build/fuzz/found/$$name build/fuzz/corpora/$$name; \
	done

lint: $(VENV)/ready
	$(PIP) install --group lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/cython-lint nghttp2py
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	$(BIN)/check-manifest --no-build-isolation --quiet

types: build
	$(PIP) install --group types
	$(BIN)/python -m mypy
	$(BIN)/python -m mypy examples
	$(BIN)/python -m mypy.stubtest nghttp2py --ignore-disjoint-bases --allowlist .stubtest-allowlist

docs: build
	$(PIP) install --group docs
	$(BIN)/sphinx-build --fail-on-warning --quiet docs build/docs

bench: deps-test build
	$(PIP) install --group bench
	@$(PIP) install --group bench-asgi || echo "not all ASGI servers can be installed"
	@set -e; for script in $(BENCHMARKS); do $(BIN)/python benchmarks/$$script.py; done

# Instructions of the small rows; ARGS=--update writes them into benchmarks/counts.json.
counts: build
	@vendor/install-deps build counts
	$(PIP) install --group bench
	$(BIN)/python benchmarks/counts.py $(ARGS)

charts: build
	$(BIN)/python benchmarks/charts.py

wheel: $(VENV)/ready
	$(PIP) install --group wheel
	rm -rf build/wheel $(if $(KEEP_DIST),,dist)
	$(BIN)/python -m build --outdir build/wheel
	$(BIN)/python vendor/bundle_libraries.py build/wheel/*.whl dist
	cp build/wheel/*.tar.gz dist
	$(BIN)/twine check --strict dist/*

# For the Python in use, and each other that is here.
wheels: wheel
	@set -e; for python in $$(.ci/interpreters); do \
	  $(MAKE) wheel KEEP_DIST=1 PYTHON=$$python VENV=.venv-$$($$python -V | cut -c 8-11); \
	done

test-wheel: deps-test build
	$(PIP) install --group test
	$(BIN)/python -m pytest tests/wheel.py $(ARGS)

clean:
	rm -rf build dist *.egg-info
	find nghttp2py -name '*.so' -delete

.PHONY: deps-build deps-test deps-fuzz
deps-build:
	@vendor/install-deps build
deps-test:
	@vendor/install-deps build test
deps-fuzz:
	@vendor/install-deps build fuzz

# The group of build requirements stands in pyproject.toml; a newer one makes the environment anew.
$(VENV)/ready: pyproject.toml | deps-build
	@test -x $(BIN)/python || $(STEP) "Make an environment in $(VENV)" $(PYTHON) -m venv $(VENV)
	@$(STEP) "Install pip" $(PIP) install --upgrade 'pip>=25.1'
	@$(STEP) "Install what compiles it" $(PIP) install --group build
	@touch $@
