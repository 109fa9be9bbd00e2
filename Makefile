# Two commands do everything on a fresh machine, each on its own:  make run   make test
# TORCH= picks another torch: make test TORCH=torch==2.14.1
PYTHON ?= python3
VENV   ?= .venv
LOCKED_TORCH := $(shell grep '^torch==' locks/torch.txt)
TORCH  ?= $(LOCKED_TORCH)
# Exact versions of all that is installed here; of what torch brings, where it is the torch that was locked.
LOCK   ?= -c locks/packages.txt $(if $(filter $(LOCKED_TORCH),$(TORCH)),-c locks/torch.txt)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEPS   := $(VENV)/.deps
BUILT  := $(VENV)/.built
TOOLS  := $(VENV)/.tools
TESTED := $(VENV)/.tested
# Each step says one line. What its command says goes to the log; what failed is shown from there.
LOG    := $(VENV)/log
LOGGED := > $(LOG) 2>&1 || { grep -i -m 20 error $(LOG) || tail -n 20 $(LOG); echo 'trimoe: that failed; all it said: $(LOG)'; exit 1; } >&2
# Test processes at once. Their threads sleep while they wait: spinning, they would keep each other from the cores.
WORKERS ?= 2
TEST   := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=10
SOURCES := $(shell find csrc python cmake -type f -not -name '*.pyc' -not -name '*.so') CMakeLists.txt pyproject.toml README.md

.PHONY: FORCE emulate sanitize run test test-fast fuzz latest lock smoke lint format reproduce bench-peers bench-native wheel clean
.NOTPARALLEL:  # one environment

# The main job: text from the model that ships with trimoe.
run: $(BUILT)
	$(BIN)/trimoe generate

test: $(TESTED)
	$(if $(LOCK),$(BIN)/python tests/locked.py)
	$(TEST)

# All tests but the slow ones: half a second or more each, most of the time together.
test-fast: $(TESTED)
	$(TEST) -m fast

# The random tests of make test, thirty times as long and with other seeds; which failed is told.
fuzz: $(TESTED)
	FUZZ_TIMES=$(or $(FUZZ_TIMES),30) FUZZ_SEED=$(or $(FUZZ_SEED),1) $(BIN)/python -m pytest --capture=sys tests/fuzz

# The tests with the newest versions that pyproject.toml allows, in an environment of its own; TORCH= as above.
latest:
	$(MAKE) test VENV=build/latest LOCK= TORCH='$(if $(filter file,$(origin TORCH)),torch,$(TORCH))'

# The lock, anew: today's newest versions in the ranges, for every Python that there is a torch for.
lock: $(DEPS)
	mkdir -p build
	$(PIP) install -q $(LOCK) uv
	printf '%s\n' '$(TORCH)' $(TO_BUILD) uv | $(BIN)/uv pip compile -q --universal --python-version 3.10 --all-extras \
	  --no-annotate --no-header --upgrade -o build/lock.txt pyproject.toml -
	grep -E '^(torch|triton|cuda-|nvidia-)' build/lock.txt > locks/torch.txt
	grep -vE '^(torch|triton|cuda-|nvidia-)' build/lock.txt > locks/packages.txt

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs $(BIN)/clang-format --dry-run --Werror
	@$(BIN)/cmake -G Ninja -S . -B build/lint -DTRIMOE_UNITY=OFF -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" $(LOGGED)
	git ls-files 'csrc/*.cpp' ':!csrc/cpu/onednn' | xargs -P 2 -n 4 $(BIN)/clang-tidy --quiet -p build/lint

format: $(TOOLS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs $(BIN)/clang-format -i

# What papers claim, simulated: docs/reproduction.md with its plot and figures; a quarter of an hour on two idle cores.
reproduce: $(TESTED)
	$(BIN)/python bench/reproduce

# One layer beside the other CPU kernels there are; installs them under build/peers, hours, a quiet machine.
bench-peers: $(TESTED)
	PEERS_HOME=$(abspath build/peers) bench/peers/setup.sh
	PEERS_HOME=$(abspath build/peers) $(BIN)/python bench/compare_peers.py run build/peers.jsonl
	$(BIN)/python bench/compare_peers.py report build/peers.jsonl

# The core's own microbenchmarks, JSON in build/native/bench. Without AMX, amx_gemm says so and ends.
bench-native: $(TESTED)
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

# The wheel, built in isolation, in a fresh environment that has nothing else; then with transformers.
SMOKE := build/smoke/bin/python
smoke: wheel
	rm -rf build/smoke && $(PYTHON) -m venv build/smoke
	$(SMOKE) -m pip install -q --disable-pip-version-check $(LOCK) pip
	$(SMOKE) -m pip install -q --disable-pip-version-check $(LOCK) '$(TORCH)' auditwheel dist/trimoe-*.whl
	$(SMOKE) tests/smoke.py op dist/trimoe-*.whl
	$(SMOKE) -m pip install -q --disable-pip-version-check $(LOCK) "$$(echo dist/trimoe-*.whl)[hf]"
	$(SMOKE) tests/smoke.py model

wheel: $(DEPS)
	rm -rf dist && $(PIP) wheel -q --no-deps $(subst -c ,--build-constraint ,$(LOCK)) -C build-dir=build/wheel -w dist .

clean:
	rm -rf $(VENV) build dist

# Rewritten only when TORCH or LOCK changes, so that another torch is installed.
WANTED := $(strip $(TORCH) $(LOCK))
ifneq ($(shell cat $(VENV)/torch.txt 2>&1),$(WANTED))
$(VENV)/torch.txt: FORCE
endif
$(VENV)/torch.txt:
	@mkdir -p $(VENV) && echo '$(WANTED)' > $@

TO_BUILD := pip 'scikit-build-core>=1.1,<2' 'pybind11>=3.0,<4' cmake ninja

$(DEPS): pyproject.toml $(wildcard locks/*.txt) $(VENV)/torch.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10)' || \
	  { echo 'expected python >= 3.10 with venv; got $(PYTHON); try apt-get install python3-venv, or PYTHON='; exit 2; }
	@echo 'trimoe: making $(VENV)'
	@{ $(PYTHON) -m venv $(VENV) && $(PIP) install $(LOCK) pip; } $(LOGGED)
	@echo 'trimoe: installing $(TORCH), the largest download, and what builds trimoe'
	@$(PIP) install $(LOCK) '$(TORCH)' $(TO_BUILD) $(LOGGED)
	@touch $@

# The build tree is kept, so that a change rebuilds in seconds.
INSTALL := $(PIP) install $(LOCK) --no-build-isolation -C build-dir=build/native
COMPILING = echo "trimoe: compiling (the first time about two minutes of CPU time, on $$(nproc) cores) and installing what

$(BUILT): $(DEPS) $(SOURCES)
	@$(COMPILING) models need"
	@$(INSTALL) '.[hf]' '$(TORCH)' $(LOGGED)
	@touch $@

# All that tests need. The programs of tests/native and the twin of the core that tests/cpu/test_onednn.py preloads
# come from the same objects as the package, which stays as it ships.
$(TESTED): $(DEPS) $(SOURCES) $(shell find tests/native tests/core -type f)
	@$(COMPILING) tests need"
	@$(INSTALL) '.[test]' '$(TORCH)' $(LOGGED)
	@echo 'trimoe: compiling the test programs'
	@{ $(BIN)/cmake -DTRIMOE_TESTS=ON build/native && $(BIN)/cmake --build build/native --target test_programs; } $(LOGGED)
	@touch $(BUILT) $@

$(TOOLS): $(DEPS) $(SOURCES)
	@$(COMPILING) lint needs"
	@$(INSTALL) '.[test,lint]' '$(TORCH)' $(LOGGED)
	@touch $(BUILT) $@
