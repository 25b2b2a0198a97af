# A first `make demo` or `make test` makes its own environment in VENV; later ones find it ready.
# pip's own settings (PIP_INDEX_URL, PIP_CONSTRAINT, ...) reach it as they are.
PYTHON ?= python3
VENV ?= .venv

# Without --no-compile, pip compiles every file of PyTorch, which takes longer than all else; Python compiles what it needs.
BIN := $(VENV)/bin
LINK := $(VENV)/.src/semipyro
INSTALL := $(BIN)/pip install --no-compile --editable
SHARED := -n auto --dist loadfile --no-loadscope-reorder
LEANING := tests/test_packaging.py \
    $(addprefix tests/training/test_, fit.py checkpoint.py left_behind.py precision.py) \
    $(addprefix tests/estimator/test_, classifier.py any_input.py files.py) \
    $(addprefix tests/examples/test_examples.py::test_a_, \
        run_prints_a_table_and_leaves_its_files killed_run_resumes_to_the_same_numbers)

.DEFAULT_GOAL := help
.PHONY: help demo test newest matrix lint notebooks docs format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1~\2/p' Makefile | while IFS='~' read -r t d; do printf '%-12s %s\n' "$$t" "$$d"; done

demo: $(VENV)/.installed ## train M2 on the embedded digits and draw its figures, anew in runs/demo
	$(BIN)/python examples/ss_vae_m2.py --out runs/demo --overwrite

test: lint ## everything that has to pass: lint, types, tests, the README's commands
	$(BIN)/pytest $(SHARED)

newest: $(VENV)/.installed-test ## the tests of what rests on the behaviour of other packages
	$(BIN)/pytest $(SHARED) $(LEANING)

matrix: ## every test with each Python found, with the oldest and the newest versions, or MATRIX="3.10-oldest 3.13-newest"
	$(PYTHON) .ci/matrix.py $(MATRIX)

lint: $(VENV)/.installed-test $(LINK) ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(VENV)/.src && MYPYPATH=.:semipyro/examples:semipyro/benchmarks \
	    $(abspath $(BIN))/mypy --config-file semipyro/pyproject.toml --cache-dir semipyro/.mypy_cache semipyro

notebooks: $(VENV)/.installed-test ## run the notebooks anew, and keep their outputs
	$(BIN)/jupyter execute --inplace --NotebookClient.record_timing=False examples/notebooks/*.ipynb

docs: $(VENV)/.installed-test ## run what the documentation claims: doctests, README commands and examples, links
	$(BIN)/pytest tests/test_docs.py

format: $(VENV)/.installed-test ## let ruff format, and fix what it can
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean: ## remove caches and builds (runs/ and the environment stay)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	    || { echo "semipyro needs Python 3.10 or later as '$(PYTHON)'; name another with: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	    || { echo "'$(PYTHON)' has no venv module; install it (on Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'pip>=21.3'

$(VENV)/.installed: setup.cfg pyproject.toml Makefile | $(BIN)/python
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml Makefile | $(BIN)/python
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.installed

# mypy needs the package under its own name, whatever the checkout is called.
$(LINK): | $(BIN)/python
	@mkdir -p $(@D) && ln -sfn $(CURDIR) $@
