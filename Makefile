# Two commands do everything on a machine with Python >= 3.11, make and a package index:
#   make demo   train, forget, retrain and compare on generated data with planted canaries; prints the table
#   make test   the same set-up, then all tests
#   make check  lint, types and the quick tests, in a few minutes: before a commit
#   make oldest the quick tests with the oldest jax allowed
#   make docs   the pages as a site, in runs/site/html
#   make fuzz   damaged and odd input of every kind for MINUTES=20; counts in runs/fuzz.json
#   make bench  step, evaluation and unlearning against retraining on this device, on generated data; JSON in runs/bench
# PYTHON=python3.12 make test   chooses another interpreter; delete .venv when changing it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

OLDEST := jax==0.10.0 jaxlib==0.10.0

.PHONY: demo test check quick lint oldest bench fuzz docs clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/ready
	rm -rf runs/demo
	$(BIN)/recunlearn data runs/demo/data --toy
	$(BIN)/recunlearn compare --data runs/demo/data --request users:5% --out runs/demo/compare --preset toy --canaries 10

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/ready
	$(MAKE) --no-print-directory -j 2 lint quick

quick: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

oldest: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' $(OLDEST)
	$(VENV)-oldest/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/ready
	$(BIN)/python benchmarks/step.py runs/bench/step.json
	$(BIN)/recunlearn data runs/bench/data --toy --users 9308 --items 6710 --pairs-per-user 8 --clusters 16
	$(BIN)/python benchmarks/unlearning.py runs/bench/unlearning.json --data runs/bench/data

SITE := runs/site/source
docs: $(VENV)/ready
	rm -rf runs/site
	mkdir -p $(SITE)/experiments $(SITE)/benchmarks
	cp -r README.md CONTRIBUTING.md CHANGELOG.md docs recunlearn_jax $(SITE)
	cp -r experiments/results $(SITE)/experiments
	cp -r benchmarks/results $(SITE)/benchmarks
	$(BIN)/mkdocs build --strict --quiet

MINUTES ?= 20
fuzz: $(VENV)/ready
	$(BIN)/python benchmarks/fuzz.py runs/fuzz.json --minutes $(MINUTES)

clean:
	rm -rf $(VENV) $(VENV)-oldest runs
