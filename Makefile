# The targets of this project, the same for people and for CI (.ci/run). `make help` lists them.
#
#   VENV      the virtual environment to make and use       (default .venv)
#   PYTHON    the interpreter to make it with               (default: the first Python >= 3.11 on the PATH)
#   FEATURES  cargo features: cuda, flash-attn, metal, ...  (default: none)
#   CARGO_TARGET_DIR is honoured where it is set.

VENV     ?= .venv
PROMPT   ?= Write a haiku about ice hockey
PYTEST   ?= -n 2
PYTHON   ?=
FEATURES ?=

venv_abs := $(abspath $(VENV))
bin      := $(venv_abs)/bin
cargo    := cargo
# One interpreter for cargo and maturin, so that neither rebuilds what the other has built.
export PYO3_PYTHON := $(bin)/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1
maturin  := env -u CONDA_PREFIX VIRTUAL_ENV=$(venv_abs) $(bin)/maturin
feature_flags := $(if $(FEATURES),--features $(FEATURES))
# CUDA's libraries stay outside of the wheel: they are a gigabyte, and the driver's belongs to the machine.
audit_flags   := $(if $(findstring cuda,$(FEATURES))$(findstring flash-attn,$(FEATURES)),--auditwheel skip)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-20s %s\n", $$1, $$2 }'

.PHONY: demo
demo: build ## Build, then answer PROMPT with the embedded model
	$(bin)/candle-phi generate --demo --seed 1 --stats "$(PROMPT)"

.PHONY: build
build: $(VENV)/.build check-cargo ## Build the package into the virtual environment (release profile)
	$(maturin) develop --release --locked $(feature_flags)

.PHONY: dev
dev: $(VENV)/.dev build ## The same, with the tools for tests and lints

.PHONY: test
test: dev test-rust test-python ## Build, then run every test

# --workspace so that features are chosen as for the wheel: with another choice Candle is compiled twice.
.PHONY: test-rust
test-rust: check-cargo
	$(cargo) test --workspace --release --locked

.PHONY: test-python
test-python: dev
	$(bin)/python -m pytest $(PYTEST)

.PHONY: test-parallel
test-parallel: dev ## Run Python's tests with each by two threads at once
	$(bin)/python -m pytest $(PYTEST) --parallel-threads 2

.PHONY: test-hub-interop
test-hub-interop: check-cargo ## Compare downloads and the cache with the crate hf-hub, on a local server; compiles hf-hub
	$(cargo) test --locked --manifest-path tools/hub-interop/Cargo.toml

.PHONY: test-capi
test-capi: check-cargo ## Run the C interface's tests, under valgrind too
	$(cargo) test --workspace --release --locked --test header --test programs -- --include-ignored

.PHONY: test-engine
test-engine: check-cargo ## Build the engine and run its example where no Python is on the PATH
	tools/engine_alone.sh

.PHONY: test-processors
test-processors: check-cargo ## Run the kernels' tests under qemu, as older x86-64 and as ARM
	tools/qemu_x86_64.sh
	tools/qemu_aarch64.sh

.PHONY: lint
lint: lint-imports lint-rust lint-python ## Everything that judges the code without running it

.PHONY: lint-imports
lint-imports: $(VENV)/bin/python ## Check that the modules of the engine import downward only
	$(bin)/python tools/check_imports.py

.PHONY: lint-rust
lint-rust: lint-rustfmt $(VENV)/.build
	$(cargo) clippy --workspace --all-targets --release --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(cargo) doc --workspace --no-deps --release --locked

.PHONY: lint-python
lint-python: dev lint-ruff lint-spelling
	$(bin)/mypy
	$(bin)/pyright --pythonpath $(bin)/python
	@echo "$(bin)/pyright --verifytypes candle_phi --ignoreexternal"
	@found=$$(PATH="$(bin):$$PATH" $(bin)/pyright --verifytypes candle_phi --ignoreexternal) || { echo "$$found"; exit 1; }
	$(bin)/python -m mypy.stubtest candle_phi._native --mypy-config-file pyproject.toml

# These three need no build: .pre-commit-config.yaml runs them for each commit.
.PHONY: lint-rustfmt
lint-rustfmt: check-cargo
	$(cargo) fmt --all --check

.PHONY: lint-ruff
lint-ruff: $(VENV)/.dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .

# New files too, but nothing that git ignores.
.PHONY: lint-spelling
lint-spelling: $(VENV)/.dev
	git ls-files -z --cached --others --exclude-standard | xargs -0 $(bin)/codespell

.PHONY: hooks
hooks: $(VENV)/.dev ## Have git run the linters that need no build, for each commit (pre-commit)
	$(bin)/python -m pip install --group hooks
	$(bin)/pre-commit install

.PHONY: lint-workflows
lint-workflows: $(VENV)/.workflows ## Check .github/: schemas, security, and scripts if actionlint is installed
	$(bin)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(bin)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(bin)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(bin)/check-jsonschema --builtin-schema vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(bin)/zizmor --offline --persona pedantic .github
	@if command -v actionlint >/dev/null; then actionlint; else echo "no actionlint on the PATH: left out"; fi

# The interpreter itself isn't needed for that, only what PyO3 would ask it.
.PHONY: lint-free-threaded
lint-free-threaded: $(VENV)/.build check-cargo ## Check the types of a build for CPython without its lock
	printf '%s\n' implementation=CPython version=3.14 shared=true pointer_width=64 build_flags=Py_GIL_DISABLED \
	  >$(VENV)/free-threaded.txt
	PYO3_CONFIG_FILE=$(venv_abs)/free-threaded.txt $(cargo) check --workspace --release --locked

.PHONY: lint-licences
lint-licences: $(VENV)/.build check-cargo ## Hold THIRD_PARTY.md against the crates that go into a wheel
	$(bin)/python tools/third_party.py --check

.PHONY: third-party
third-party: $(VENV)/.build check-cargo ## Write THIRD_PARTY.md anew
	$(bin)/python tools/third_party.py

.PHONY: audit
audit: $(VENV)/.build check-cargo ## Look for known flaws in what is depended on; needs cargo-deny, and advisories from the network
	$(cargo) deny --all-features check
	$(bin)/python -m pip install --group audit
	$(bin)/pip-audit --strict --skip-editable

.PHONY: cargo-deny
cargo-deny: check-cargo ## Install the version of cargo-deny that CI runs `make audit` with
	$(cargo) install --locked cargo-deny@0.20.2

.PHONY: format
format: $(VENV)/.dev check-cargo ## Format all code, and fix what the linters can fix
	$(cargo) fmt --all
	$(bin)/ruff check --fix --show-fixes .
	$(bin)/ruff format .

.PHONY: figures
figures: dev ## Write the tables of measurements on the pages, from benchmarks/results/
	$(bin)/python benchmarks/figures.py

.PHONY: capi-header
capi-header: check-cargo ## Write the header of the C interface anew, from its sources
	CANDLE_PHI_WRITE_HEADER=1 $(cargo) test --workspace --release --locked --test header

.PHONY: options-table
options-table: check-cargo ## Write the table of options in docs/reference/options.md anew
	CANDLE_PHI_WRITE_OPTIONS=1 $(cargo) test --workspace --release --locked --test options_page

# The site runs the notebook, which takes the package and what the tests run it with.
.PHONY: docs
docs: dev $(VENV)/.docs ## Build the site into site/; a link or name that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet

# A GPU's libraries are the machine's own, and macOS and Windows have one libc: those wheels are built as they come.
portable := $(if $(FEATURES),,$(filter Linux,$(shell uname -s)))
with_tools := PATH="$(bin):$$PATH"

.PHONY: wheel
# `make wheel portable=` builds one for systems as new as this one, out of what `make build` has compiled.
wheel: $(VENV)/.wheel check-cargo ## Build a wheel into dist/; on Linux, for all Linux systems with glibc
ifneq ($(portable),)
	$(with_tools) tools/wheel.sh
else
	$(bin)/python tools/sbom.py --features "$(FEATURES)" candle-phi.cyclonedx.json
	$(maturin) build --release --locked --out dist $(feature_flags) $(audit_flags) --sbom-include candle-phi.cyclonedx.json
endif

.PHONY: wheel-aarch64
wheel-aarch64: $(VENV)/.wheel check-cargo ## The same for 64-bit ARM Linux with glibc
	$(with_tools) tools/wheel.sh aarch64-unknown-linux-gnu

.PHONY: wheel-musl
wheel-musl: $(VENV)/.wheel check-cargo ## The same for Linux with musl (Alpine), for x86-64 and 64-bit ARM
	$(with_tools) tools/wheel.sh x86_64-unknown-linux-musl
	$(with_tools) tools/wheel.sh aarch64-unknown-linux-musl

.PHONY: sdist
sdist: $(VENV)/.build ## Build a source distribution into dist/
	$(maturin) sdist --out dist

.PHONY: test-wheel
test-wheel: $(VENV)/.wheel ## Install the wheel of dist/ in an environment of its own, and let it answer
	$(bin)/python tools/check_wheel.py

.PHONY: test-pythons
test-pythons: $(VENV)/.wheel ## Run the tests against the wheel of dist/, on each CPython >= 3.11 of this machine
	$(bin)/python tools/check_wheel.py --every-python --tests

.PHONY: test-aarch64
test-aarch64: $(VENV)/.wheel check-cargo ## Run the ARM wheel of dist/ and the kernels' tests under qemu
	$(with_tools) tools/qemu_aarch64_wheel.sh
	tools/qemu_aarch64.sh

.PHONY: test-sdist
test-sdist: $(VENV)/.build check-cargo ## Build a wheel from the source distribution, away from the checkout
	$(with_tools) tools/test_sdist.sh

.PHONY: test-reproducible
test-reproducible: $(VENV)/.wheel check-cargo ## Build the wheel twice, in two places, and compare the bytes
	$(with_tools) tools/test_reproducible.sh

.PHONY: clean
clean: ## Remove the environment, the caches and what was built here
	rm -rf $(VENV) dist site target tools/hub-interop/target .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f python/candle_phi/_native*.so python/candle_phi/_native*.pyd
	find python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# --- prerequisites of the targets above ---

.PHONY: print-python
print-python:
	@echo $(bin)/python

.PHONY: check-cargo
check-cargo:
	@command -v cargo >/dev/null || { echo "error: cargo is not on the PATH; install Rust 1.94 or later from https://rustup.rs" >&2; exit 1; }
	@case "$$(uname -m):$${RUSTFLAGS+set}" in \
	  aarch64:set|arm64:set) echo "warning: RUSTFLAGS is set, so cargo ignores .cargo/config.toml: no fp16" >&2 ;; \
	esac

$(VENV)/bin/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python >= 3.11 on the PATH; install one, or say which: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; \
	fi; \
	if $$found -c 'import ensurepip, venv' >/dev/null 2>&1; then $$found -m venv $(VENV); \
	elif $$found -m virtualenv --version >/dev/null 2>&1; then $$found -m virtualenv $(VENV); \
	else \
	  echo "error: $$found cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; \
	fi
	$(bin)/python -m pip install --upgrade "pip>=25.1"

$(VENV)/.build: pyproject.toml | $(VENV)/bin/python
	$(bin)/python -m pip install --group build
	@touch $@

$(VENV)/.wheel: pyproject.toml $(VENV)/.build
	$(bin)/python -m pip install --group wheel
	@touch $@

$(VENV)/.workflows: pyproject.toml | $(VENV)/bin/python
	$(bin)/python -m pip install --group workflows
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.build
	$(bin)/python -m pip install --group everything
	@touch $@

$(VENV)/.docs: pyproject.toml $(VENV)/.dev
	$(bin)/python -m pip install --group docs
	@touch $@
