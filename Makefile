# make run    install what is missing, upgrade the database, run the quick study
# make test   install what is missing, check the code, run the tests
# make ui     open the explorer on the results
# make paper  run the study of the paper and write its audit
# make atlas  run the study of many networks and write what it teaches

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

unexport PYTHONDONTWRITEBYTECODE  # with it, each of the processes that tests start would compile every module anew

.DEFAULT_GOAL := help
.PHONY: help run test pytest lint validate coverage format ui paper paper-quick atlas bench docs pre-commit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is missing: install Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: install a newer one and call make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python -m venv failed: on Debian, install python3-venv"; exit 1; }

# The stamps say which pyproject.toml is installed; everything else is read from the tree.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV); the first time takes a minute or two"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) with what the tests need; the first time takes a minute or two"
	@$(PIP) install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed

run: $(VENV)/.installed ## run the quick study and show its validity windows
	$(BIN)/eft db upgrade
	$(BIN)/eft run quick

lint: $(VENV)/.installed-test ## check style, types and which room imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: $(VENV)/.installed-test ## run every check, and beside them all tests but the campaigns
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

# two workers on two processors: threads of linear algebra that wait for one another would cost a tenth more
pytest validate: export OMP_NUM_THREADS := 1
pytest validate: export OPENBLAS_NUM_THREADS := 1

pytest: $(VENV)/.installed-test
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

validate: $(VENV)/.installed-test ## run the campaigns (tests too long for make test) and record what they came to
	$(BIN)/pytest -m campaign -n 2 --dist worksteal --record=benchmarks/CAMPAIGNS.md

coverage: $(VENV)/.installed-test ## run the same tests, and show which lines none of them reaches
	$(BIN)/coverage run -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

format: $(VENV)/.installed-test ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ui: $(VENV)/.installed ## open the explorer on the results
	$(BIN)/eft ui

paper: $(VENV)/.installed ## run the study of the paper (some minutes) and write docs/paper.md and docs/paper.html
	$(BIN)/eft db upgrade
	$(BIN)/eft run paper
	$(BIN)/eft report --output docs/paper.html --markdown docs/paper.md

paper-quick: $(VENV)/.installed ## the same with fewer networks, within two minutes, into paper-quick.html
	$(BIN)/eft db upgrade
	$(BIN)/eft run paper-quick
	$(BIN)/eft report --study paper-quick --output paper-quick.html

atlas: $(VENV)/.installed ## run the studies of many networks (about half an hour), write docs/atlas.md and the release build/atlas
	$(BIN)/eft db upgrade
	$(BIN)/eft run atlas
	$(BIN)/eft run plane
	$(BIN)/eft run digits-16
	$(BIN)/eft run blocks
	$(BIN)/eft atlas --output docs/atlas.md
	rm -rf build/atlas
	$(BIN)/eft release build/atlas --study atlas --study plane --study digits-16 --study blocks

docs: $(VENV)/.installed-test ## build the documentation into site/; a broken link ends it
	$(BIN)/zensical build --strict --clean
	$(BIN)/python docs/typeset.py site

bench: $(VENV)/.installed-test ## measure time and memory of the theory and the simulation
	$(BIN)/python -m benchmarks.theory
	$(BIN)/python -m benchmarks.simulation

pre-commit: $(VENV)/.installed-test ## check the code before each commit
	$(PIP) install --quiet 'pre-commit>=4'
	$(BIN)/pre-commit install

clean: ## remove the environment and caches; results stay
	rm -rf $(VENV) build dist site .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage*
