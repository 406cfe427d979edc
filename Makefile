# `make demo` and `make test` set up what they need; second runs skip the set-up.
PYTHON ?= python3.11
# Each process would compile this project's code anew, and the tests start hundreds.
export PYTHONDONTWRITEBYTECODE =
BIN := .venv/bin
READY := .venv/.ready

.PHONY: setup demo test test-long quick lint format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt package-lock.json
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	.ci/browser
	touch $(READY)

demo: setup
	$(BIN)/nas launch examples/demo.yaml
	$(BIN)/nas pareto --html pareto.html
	rm -rf demo-model
	$(BIN)/nas export --to demo-model
	$(BIN)/nas generate demo-model --prompt "def "

# Three on two cores: some tests wait for processes of Ray and PostgreSQL, and each worker collects
# all of them first. Files in the order of tests/conftest.py: xdist's own, by how many tests a file
# has, would leave the slowest to the end.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not long"

# What tests/depth.py says: the further designs, pages, tools and faults. CI runs these, too.
test-long: setup
	$(PYTEST) -m long

quick: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long" -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build node_modules *.egg-info
