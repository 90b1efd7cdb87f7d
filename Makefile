# make demo: the main job on the miniature study of examples/miniature. make test: everything that must hold.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo check test lint types contracts fast unit laptop wheel fuzz minimum pictures docs benchmarks tables clean help

help:
	@echo "make demo        install, then images -> models -> cache -> tables, figures, report (some minutes)"
	@echo "make check       lint, types, contracts and the fast tests: before every commit"
	@echo "make test        lint, types, import contracts, wheel, all tests, and the laptop's tests without torch"
	@echo "make lint        ruff: rules and format"
	@echo "make types       mypy, strict"
	@echo "make contracts   which package may import which (import-linter)"
	@echo "make fast        the fast tests alone"
	@echo "make unit        the tests of extract, and those that need all three packages"
	@echo "make laptop      the tests of cache_schema and analyze, without torch (CI=true: on a newer Python as well)"
	@echo "make wheel       build sdist and wheel, look into both, run them in bare environments"
	@echo "make fuzz        read thousands of stores that were changed by an attacker (SEED=0 COUNT=5000 of each format)"
	@echo "make minimum     the fast tests on the lowest versions that the base install allows"
	@echo "make pictures    draw the pictures of README and site again from the demonstration"
	@echo "make docs        the documentation site, with the gallery and the notebooks from the demonstration"
	@echo "make benchmarks  the side-by-side timings, into benchmarks/figures.json; then make tables"
	@echo "make tables      write benchmarks/figures.json into the tables of README.md and benchmarks/README.md"
	@echo "make clean       remove what was made here"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Closerlook needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[demo]'
	@touch $@

$(VENV)/test.stamp: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@ $(VENV)/demo.stamp

demo: $(VENV)/demo.stamp
	$(BIN)/python -m examples.miniature
	$(BIN)/extract --model-list models.txt --datasets miniature/datasets.toml --prompts openai-80,study-30,study-5,photo-1 --cache demo/cache
	$(BIN)/analyze metrics demo/cache -o demo/results.parquet
	$(BIN)/analyze prompts demo/cache --only top1,ece,nll,auroc -o demo/results.parquet
	$(BIN)/analyze ood demo/cache --id mini-val --reference mini-train --detectors all -o demo/results.parquet
	$(BIN)/analyze table demo/results.parquet --rows model --columns dataset --where metric=top1 --best
	$(BIN)/analyze figures demo/results.parquet --cache demo/cache -o demo/figures --format png
	$(BIN)/analyze report demo/results.parquet --cache demo/cache -o demo/report.html
	@echo
	@echo "The cache lies in demo/cache, every number in demo/results.parquet, the figures in demo/figures;"
	@echo "open demo/report.html in a browser."

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/test.stamp
	$(BIN)/mypy

contracts: $(VENV)/test.stamp
	$(BIN)/lint-imports

wheel: $(VENV)/test.stamp
	$(BIN)/python tests/check_wheel.py

# No model, no server, no browser: what most mistakes are found by within a minute.
FAST := tests/test_imports.py tests/test_closerlook.py tests/test_distribution.py \
  tests/test_cache_schema/test_identities.py tests/test_cache_schema/test_centred.py \
  tests/test_cache_schema/test_spec.py tests/test_cache_schema/test_dataset_roles.py \
  tests/test_analyze/test_metrics_detection.py tests/test_analyze/test_quantities.py \
  tests/test_analyze/test_metric_rows.py tests/test_analyze/test_changed_roles.py \
  tests/test_extract/test_model_list.py tests/test_extract/test_datasets_specs.py

fast: $(VENV)/test.stamp
	bash tests/in_memory.sh $(BIN)/python -m pytest -q $(FAST)

check: lint types contracts fast

# The tests of cache_schema and analyze run in 'laptop', without torch; some of them hold more where there is torch.
MORE_WITH_TORCH := tests/test_analyze/test_array_arguments.py tests/test_analyze/test_exact_edges.py \
  tests/test_analyze/test_metrics_weights.py tests/test_cache_schema/test_attacks_places.py

unit: $(VENV)/test.stamp
	bash tests/in_memory.sh $(BIN)/python -m pytest -q -n 2 --dist worksteal tests/test_*.py tests/test_extract $(MORE_WITH_TORCH)

laptop:
	PYTHON=$(PYTHON) bash tests/laptop.sh

test: lint types contracts wheel laptop unit

# The last line holds the counts: mutations, refused, read, tracebacks, crashes, hangs, over memory, leaks.
SEED  ?= 0
COUNT ?= 5000
fuzz: $(VENV)/test.stamp
	$(BIN)/python tests/store_mutations.py --seed $(SEED) --count $(COUNT)

# The lowest versions that pyproject.toml allows for the base install, in an environment of their own.
minimum:
	$(PYTHON) tests/minimum_versions.py

# The pictures of README.md and of the site's pages; 'make demo' first.
pictures: $(VENV)/demo.stamp
	$(BIN)/python docs/draw_pictures.py

# The site opens from site/index.html, without a server; 'make demo' first.
docs: $(VENV)/test.stamp
	$(BIN)/python docs/build.py

benchmarks: $(VENV)/test.stamp
	$(BIN)/python benchmarks/analysis.py all
	$(BIN)/python benchmarks/detectors.py
	$(BIN)/python benchmarks/extraction.py

# The tables of the READMEs; CONTRIBUTING.md says how a figure gets there.
tables: $(VENV)/test.stamp
	$(BIN)/python benchmarks/write_tables.py

clean:
	rm -rf .venv .venv-laptop-* .venv-minimum demo miniature build dist site docs/gallery docs/executed .mypy_cache .ruff_cache .pytest_cache .hypothesis
