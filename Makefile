# Each target sets up what it needs in .venv; the stamp skips that while pyproject.toml is unchanged.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin
STAMP := .venv/.set-up

.PHONY: setup demo test test-slow test-databases test-browser lint faults bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed; install it or run make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up .venv: Python packages, then Apache Kafka. Once, in a minute or two."
ifneq ($(UV),)
	@test -x $(BIN)/python || "$(UV)" venv --quiet --python "$(PYTHON)" .venv
	@"$(UV)" pip install --quiet --python $(BIN)/python --editable '.[dev]'
else
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
endif
	@$(BIN)/millrace broker fetch || echo "Going on without: what needs Kafka needs one of yours, or this again."
	@touch $@

demo: $(STAMP)
	@$(BIN)/millrace demo

test: $(STAMP)
	$(BIN)/pytest -m "not slow and not browser and not databases" -n 2 --dist loadfile

# One after the other: two at a time take 12 minutes instead of 19, and starve each other of their limits at times.
test-slow: $(STAMP)
	$(BIN)/pytest -m "slow and not databases" --durations=30

# MariaDB's and PostgreSQL's programs have to be there; the tests start servers of their own, and skip what is missing.
test-databases: $(STAMP)
	@command -v mariadbd >/dev/null || test -x /usr/sbin/mariadbd || \
		{ echo "error: MariaDB is needed: apt-get install mariadb-server postgresql"; exit 1; }
	$(BIN)/pytest -m databases

# What looks at the page needs a Chromium of the system, and packages that nothing else needs.
test-browser: $(STAMP)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ echo "error: a Chromium is needed: apt-get install chromium"; exit 1; }
ifneq ($(UV),)
	@"$(UV)" pip install --quiet --python $(BIN)/python --editable '.[dev,browser]'
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,browser]'
endif
	$(BIN)/pytest -m browser -s

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: $(STAMP)
	$(BIN)/millrace chaos --runs 30
	$(BIN)/millrace chaos --runs 10 --nodes 3 --seed 1000

bench: $(STAMP)
	$(BIN)/millrace bench throughput

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
