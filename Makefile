# make demo        set everything up, then deploy the packaged network for this computer and for an emulated board
# make report      measure the packaged network by several methods on several boards, and show all of it on one page
# make test        the fast tests;  make test-slow: all that need no hardware
# make check       format, lint, types
# make fuzz        10,000 damaged inputs for every reader of files
PYTHON ?= python3
BIN := .venv/bin
JOBS ?= 2
DEPLOY := $(BIN)/svitkit deploy digits-spikformer
SYSROOT := /usr/aarch64-linux-gnu/lib/libc.so.6

.PHONY: setup demo report test test-slow fuzz check check-wheel constraints clean
.DELETE_ON_ERROR:

setup: .venv/.installed .venv/.emulator .venv/.sshd .venv/.pocl

.venv/.installed: pyproject.toml constraints.txt svitkit/__init__.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "svitkit needs Python 3.11 or newer; say which one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo 'installing into .venv (a few minutes the first time)'
	@$(BIN)/pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Emulated boards need qemu and the C library of arm64. Without them everything else still works.
.venv/.emulator: scripts/install_emulator scripts/install_packages | .venv/.installed
	@scripts/install_emulator
	@touch $@

# The tests of boards over SSH start an sshd of their own. Without it they are skipped.
.venv/.sshd: scripts/install_sshd scripts/install_packages | .venv/.installed
	@scripts/install_sshd
	@touch $@

# The tests of programs for GPUs run them on the CPU, through OpenCL. Without it they are skipped.
.venv/.pocl: scripts/install_pocl scripts/install_packages | .venv/.installed
	@scripts/install_pocl
	@touch $@

# The tests of reports open them in Chromium. Without it they are skipped.
.venv/.chromium: scripts/install_chromium scripts/install_packages | .venv/.installed
	@scripts/install_chromium
	@touch $@

# Exit 3 of deploy means: measured, but something disturbed the run; the table says what.
demo: setup
	@$(DEPLOY) --board host || test $$? = 3
	@if command -v qemu-aarch64-static >/dev/null && test -e $(SYSROOT); then \
	  $(DEPLOY) --board qemu-cortex-a72 || test $$? = 3; \
	else echo "qemu-cortex-a72 skipped: no emulator (apt-get install qemu-user-static libc6-arm64-cross)"; fi

report: setup
	scripts/make_report

test: setup .venv/.chromium
	$(BIN)/pytest -n $(JOBS)

test-slow: setup .venv/.chromium
	$(BIN)/pytest -n $(JOBS) -m "not board and not gpu"

SEED ?= 0
fuzz: setup
	$(BIN)/python -W ignore -m tests.fuzz --seed $(SEED)

check: setup
	scripts/check

check-wheel: setup
	scripts/check_wheel

# Writes constraints.txt from a fresh environment with the newest versions that pyproject.toml allows.
constraints:
	scripts/update_constraints

clean:
	rm -rf .venv build dist svitkit-out .mypy_cache .pytest_cache .ruff_cache
