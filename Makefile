# Every verb sets up what it needs. `make up` and `make test` are all a newcomer has to know.
SHELL := /bin/bash
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PYTHON ?= python3
BIN := .venv/bin
APT_RUN := gcc libc6-dev linux-libc-dev musl-tools binutils qemu-system-x86 qemu-utils nftables iproute2 mmdebstrap e2fsprogs xz-utils zstd openssh-client ca-certificates busybox-static
APT_TEST := fdisk xfsprogs btrfs-progs runc curl rsync git procps chromium libnss3-tools nodejs docker-registry bind9-libs haproxy pebble zsh fish skopeo
APT_BENCH := wrk

.PHONY: help setup setup-front setup-test up test check golden docs bench nightly fuzz
help:
	@echo "make up      set up what is missing and run the platform (needs root; uses sudo)"
	@echo "make test    set up what tests need and run them all, real VMs included"
	@echo "make check   style, types, architecture"
	@echo "make golden  write the golden files anew; review them as a diff"
	@echo "make docs    write the generated pages of docs/reference anew"
	@echo "make bench   measure against peers and floors on this machine"
	@echo "make nightly kill the control process at 200 random moments and look for what was lost or left"
	@echo "make fuzz    look for inputs that break the edge's parsers; SECONDS=600 unless told otherwise"
	@echo "make setup   only set up; leaves .venv/bin/ussycode"
	@echo "make setup-front  the same with Caddy, for front = caddy"

setup: .venv/run
	@scripts/apt-install $(APT_RUN)

setup-front: setup
	$(BIN)/pip install --quiet --require-hashes -r requirements/front.txt

setup-test: .venv/dev
	@scripts/apt-install $(APT_RUN) $(APT_TEST)

.venv/run: requirements/run.txt pyproject.toml
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/run.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev: .venv/run requirements/dev.txt
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

up: setup
	$(SUDO) $(BIN)/ussycode up

test: setup-test check
	$(SUDO) $(BIN)/python -m tests.live.prepare
	$(SUDO) $(BIN)/python -m pytest

check: setup-test
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/locks_clean.py
	$(BIN)/python scripts/write_reference.py --check

golden: setup-test
	$(BIN)/python -m pytest tests/golden --write-golden

docs: setup-test
	$(BIN)/python scripts/write_reference.py

bench: setup-test
	@scripts/apt-install $(APT_RUN) $(APT_TEST) $(APT_BENCH)
	$(SUDO) $(BIN)/python bench/run.py

fuzz: setup-test
	$(BIN)/pip install --quiet --require-hashes -r requirements/fuzz.txt
	nice $(BIN)/python tests/fuzz/run.py $(or $(SECONDS),600) $(ORACLES)

nightly: setup-test
	$(SUDO) env KILL_POINTS=200 $(BIN)/python -m pytest tests/live/test_kill_points.py
