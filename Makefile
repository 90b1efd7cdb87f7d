# make demo: the main job on the built-in miniature study. make test: everything that must hold.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint types contracts unit laptop wheel pictures benchmarks clean help

help:
	@echo "make demo        install, then images -> models -> cache -> tables, figures, report (about ten minutes)"
	@echo "make test        lint, types, import contracts, wheel, all tests, and the laptop's tests without torch"
	@echo "make pictures    draw the README's figures again from the demonstration"
	@echo "make benchmarks  the side-by-side timings of benchmarks/README.md"
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
	$(BIN)/extract --model-list models.txt --prompts openai-80,study-30,study-5,photo-1 --cache demo/cache
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

types: $(VENV)/test.stamp
	$(BIN)/mypy

contracts: $(VENV)/test.stamp
	$(BIN)/lint-imports

wheel: $(VENV)/test.stamp
	$(BIN)/python tests/check_wheel.py

# The tests of cache_schema and analyze run in 'laptop', without torch; these are the others.
unit: $(VENV)/test.stamp
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/test_imports.py tests/test_extract tests/test_end_to_end.py tests/test_notebooks.py

laptop:
	PYTHON=$(PYTHON) bash tests/laptop.sh

test: lint types contracts wheel laptop unit

# The README's three pictures; 'make demo' first.
pictures: $(VENV)/demo.stamp
	$(BIN)/python docs/draw_pictures.py

benchmarks: $(VENV)/test.stamp
	$(BIN)/python benchmarks/analysis.py
	$(BIN)/python benchmarks/detectors.py
	$(BIN)/python benchmarks/extraction.py

clean:
	rm -rf .venv .venv-laptop-* demo miniature build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
