# Two commands do everything on a fresh machine, each on its own:  make run   make test
# TORCH= picks another torch: make test TORCH=torch==2.14.1
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= $(shell cat constraints.txt)
BIN    := $(VENV)/bin
DEPS   := $(VENV)/.deps
BUILT  := $(VENV)/.built
TOOLS  := $(VENV)/.tools
TWIN   := $(VENV)/.twin
SOURCES := $(shell find csrc python cmake -type f -not -name '*.pyc' -not -name '*.so') CMakeLists.txt pyproject.toml README.md

.PHONY: FORCE emulate sanitize run test smoke lint format reproduce bench-peers bench-native wheel clean

# The main job: text from the model that ships with trimoe.
run: $(BUILT)
	$(BIN)/trimoe generate

test: $(BUILT) $(TWIN)
	$(BIN)/python -m pytest

lint: $(BUILT) $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror
	git ls-files 'csrc/*.cpp' ':!csrc/cpu/onednn' | xargs -P 2 -n 4 $(BIN)/clang-tidy --quiet -p build/native

format: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs $(BIN)/clang-format -i

# What papers claim, simulated: docs/reproduction.md with its plot and figures; a quarter of an hour on two idle cores.
reproduce: $(BUILT)
	$(BIN)/python bench/reproduce

# One layer beside the other CPU kernels there are; installs them under build/peers, hours, a quiet machine.
bench-peers: $(BUILT)
	PEERS_HOME=$(abspath build/peers) bench/peers/setup.sh
	PEERS_HOME=$(abspath build/peers) $(BIN)/python bench/compare_peers.py run build/peers.jsonl
	$(BIN)/python bench/compare_peers.py report build/peers.jsonl

# The core's own microbenchmarks, JSON in build/native/bench. Without AMX, amx_gemm says so and ends.
bench-native: $(BUILT)
	$(BIN)/cmake -DTRIMOE_BENCH=ON build/native > build/native/bench.log
	$(BIN)/cmake --build build/native --target bench_native
	cd build/native/bench && for program in membw avx_gemm amx_gemm expert_ffn ndp_bench; do test ! -x native/$$program || \
	  native/$$program --benchmark_out=$$program.json || test $$program = amx_gemm || exit 1; done

# The core on processors that this machine is not; see the script for what it needs.
emulate: $(DEPS)
	PATH="$(abspath $(BIN)):$$PATH" tests/emulated/run.sh

# The core under the compiler's sanitizers, every kernel and format.
sanitize: $(DEPS)
	PATH="$(abspath $(BIN)):$$PATH" tests/sanitize/run.sh

# The wheel, built in isolation, in a fresh environment that has nothing else.
smoke: wheel
	rm -rf build/smoke && $(PYTHON) -m venv build/smoke
	build/smoke/bin/pip install -q --disable-pip-version-check '$(TORCH)' dist/trimoe-*.whl
	build/smoke/bin/python tests/smoke.py

wheel: $(DEPS)
	rm -rf dist && $(BIN)/pip wheel -q --disable-pip-version-check --no-deps -C build-dir=build/wheel -w dist .

clean:
	rm -rf $(VENV) build dist

# Rewritten only when TORCH changes, so that another torch is installed.
$(VENV)/torch.txt: FORCE
	@mkdir -p $(VENV) && echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(DEPS): pyproject.toml constraints.txt $(VENV)/torch.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10)' || \
	  { echo 'expected python >= 3.10 with venv; got $(PYTHON); try apt-get install python3-venv, or PYTHON='; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check 'pip>=23.1'
	$(BIN)/pip install -q --disable-pip-version-check '$(TORCH)' 'scikit-build-core>=1.1,<2' 'pybind11>=3.0,<4' cmake ninja
	touch $@

# The build tree is kept, so that a change rebuilds in seconds.
INSTALL := $(BIN)/pip install -q --disable-pip-version-check --no-build-isolation -C build-dir=build/native -C cmake.define.TRIMOE_TESTS=ON

$(BUILT): $(DEPS) $(SOURCES)
	$(INSTALL) '.[test]' '$(TORCH)'
	touch $@

$(TOOLS): $(BUILT)
	$(INSTALL) '.[lint]' '$(TORCH)'
	touch $@

# A twin of the core with oneDNN in its table, for tests/cpu/test_onednn.py: the package stays as it ships. The
# wheel came with the tests; there is none but for x86-64.
$(TWIN): $(BUILT)
	test "$$(uname -m)" != x86_64 || { $(BIN)/cmake build/native > build/native/twin.log && \
	  $(BIN)/cmake --build build/native --target trimoe_core_onednn > build/native/twin.log; }
	touch $@
