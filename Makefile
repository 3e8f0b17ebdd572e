# Targets set up what they need; a second call installs nothing. Works with GNU make 3.81 (macOS).
.DEFAULT_GOAL := help
.PHONY: setup new repro test test-slow torture lint docs lock upgrade ui table verify lr-find seeds search zoo clean help

# Not make's default shell: make 3.81 would start simple commands itself, with the old PATH.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# More processes than cores only import torch more often.
FAST := --numprocesses logical --maxprocesses 4 --dist worksteal

INSTALL := @bash requirements/install.sh
COMPILE := uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header \
	$(if $(filter 1,$(UPGRADE)),--upgrade)

setup: ## install everything into .venv; PYTHON=python3.13 and TORCH=<index url> choose others
	$(INSTALL) runtime
	@echo 'Ready. `make repro` runs the pipeline; `source .venv/bin/activate` gives dvc and mlflow.'

new: ## make this clone a project of your own: NAME=my-project
	$(INSTALL) runtime
	@python -m new -- "$(NAME)"

repro: ## run what has changed of the pipeline, then say where the results are
	$(INSTALL) runtime
	dvc repro
	@python -m src.where

test: ## run the fast tests
	$(INSTALL) dev
	python -m pytest $(FAST)

# Slow tests also wait for queues and servers, so three share two cores. They go one at a time to
# whoever is free, the longest first (tests/conftest.py).
SLOW := -m slow --numprocesses 3 --dist load --maxschedchunk 1
test-slow: ## run the slow tests: the real pipeline in temporary clones
	$(INSTALL) team
	python -m pytest $(SLOW)

torture: ## kill the pipeline some 80 times and compare every bit; an hour
	$(INSTALL) dev
	python -m tests.pipeline.torture

lint: ## check style, format and types
	$(INSTALL) dev
	ruff check
	ruff format --check
	mypy

docs: ## build the pages of docs/ as a site, in .cache/site; a link to nowhere stops it
	$(INSTALL) docs
	@sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --nitpicky docs .cache/site
	@echo 'Open .cache/site/index.html'

lock: ## write the lock files and versions.yaml from pyproject.toml; UPGRADE=1 takes new versions
	$(INSTALL) uv
	echo uv | $(COMPILE) --output-file requirements/uv.txt -
	$(COMPILE) --output-file requirements/runtime.lock pyproject.toml
	$(COMPILE) --output-file requirements/dev.lock --constraint requirements/runtime.lock --group dev
	$(COMPILE) --output-file requirements/docs.lock --constraint requirements/runtime.lock \
		--constraint requirements/dev.lock --group docs
	$(COMPILE) --output-file requirements/team.lock --constraint requirements/runtime.lock \
		--constraint requirements/dev.lock --constraint requirements/docs.lock --group team
	python requirements/versions.py

upgrade: ## merge what is new upstream; FROM=... names another address or folder
	$(INSTALL) runtime
	@python -m src.upgrade $(if $(FROM),"$(FROM)")

ui: ## browse the runs in MLflow; PORT=5001 takes another port than 5000
	$(INSTALL) runtime
	@python -m src.ui $(if $(PORT),--port $(PORT))

table: ## print the experiments as a table
	$(INSTALL) runtime
	@python -m src.table

verify: ## run a result again from its sources alone and compare; REV=... takes another than HEAD
	$(INSTALL) runtime
	@python -m src.verify $(REV)

lr-find: ## which learning rate to try: the range test
	$(INSTALL) runtime
	@python -m src.lr_find $(ARGS)

seeds: ## train N=5 seeds of the configuration: the noise that a gain has to exceed
	$(INSTALL) runtime
	@python -m src.seeds $(or $(N),5) $(ARGS)

search: ## random search of N=20 trials over recipes/search.yaml; ARGS="--workers 2" runs them
	$(INSTALL) runtime
	@python -m src.search $(or $(N),20) $(ARGS)

zoo: ## score the checks on faults, harmless changes and healthy set-ups
	$(INSTALL) dev
	@python -m tests.zoo.known.score $(ARGS)

clean: ## delete what is finished: caches, old checkpoints; results and runs stay
	$(INSTALL) runtime
	@python -m src.clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\): ## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done
