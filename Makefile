# Two commands are all that a fresh machine (Python 3.11, make) needs: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TESTS ?= tests
JOBS ?= 2

.PHONY: install run test soak check lint types bench lock clean

install: .venv/installed

.venv/installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: expected Python 3.11 or newer, got: '$(PYTHON)'; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# Compiled once: a process that may not write bytecode would compile all of it at each start.
	$(BIN)/python -m compileall -q bus projections services infra
	@touch $@

# Bring the example fleet up and work through the recorded trace, in front of your eyes.
run: install
	@$(BIN)/systems run

test: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m "not soak" $(TESTS)

# What takes long, or repeats many times what `make test` shows once: 20 kills, a day in compressed time.
soak: install
	$(BIN)/pytest -n $(JOBS) --dist worksteal -m soak --timeout 900 -o faulthandler_timeout=900 $(TESTS)

# What CI also checks.
check: lint types
lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
types: install
	$(BIN)/mypy

# Ratios measured side by side in one run; prints a table, keeps bench.json.
bench: install
	$(BIN)/python -m tests.bench $(BENCH)

# Remake constraints.txt from pyproject.toml; what is pinned stays pinned unless it no longer fits (`make lock UPGRADE=--upgrade`).
lock: install
	$(BIN)/pip install --quiet uv
	cp constraints.txt constraints.new
	$(BIN)/uv pip compile $(UPGRADE) --quiet --no-header --generate-hashes --group dev --python-version 3.11 --universal pyproject.toml -o constraints.new
	{ echo '# Every package that the project installs, pinned with its hashes. Remade by `make lock`.'; cat constraints.new; } > constraints.txt
	rm constraints.new

clean:
	rm -rf .venv .systems
