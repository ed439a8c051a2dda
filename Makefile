PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
REFERENCE_DATA := $(wildcard ../shared/coco-mini)
ifneq ($(REFERENCE_DATA),)
export QUANTSWEEP_REFERENCE_DATA ?= $(abspath ../shared)
endif
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

# Two files at a time; what a file's tests share is made once. Tests that look at CPU time follow on a quiet machine.
PARALLEL := --numprocesses 2 --dist loadfile

.PHONY: help install demo test test-all lint bench clean

help:
	@echo "make demo      install, then sweep the built-in detector on synthetic COCO data"
	@echo "make test      install, then ruff, mypy and the tests"
	@echo "make test-all  the same with the slow proofs"
	@echo "make bench     ratios against named alternatives"
	@echo "make clean     remove what make made"

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed

demo: install
	$(BIN)/quantsweep demo

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest $(PARALLEL) -m "not slow and not alone"
	$(BIN)/pytest -m "not slow and alone"

test-all: lint
	$(BIN)/pytest $(PARALLEL) -m "not alone"
	$(BIN)/pytest -m alone

bench: install
	$(BIN)/python -m tests.benchmarks.postprocessing
	$(BIN)/python -m tests.benchmarks.latency_against_itself
	$(BIN)/python -m tests.benchmarks.latency_against_itself --busy
	$(BIN)/python -m tests.benchmarks.latency_known_difference
	$(BIN)/python -m tests.benchmarks.latency_of_structures
	$(BIN)/python -m tests.benchmarks.textbook_sweep
	$(BIN)/python -m tests.benchmarks.uncertainty
	$(BIN)/python -m tests.benchmarks.interval_stop
	$(BIN)/python -m tests.benchmarks.unsupported_combinations
	$(BIN)/python -m tests.benchmarks.calibration
	$(BIN)/python -m tests.benchmarks.calibration_size
	$(BIN)/python -m tests.benchmarks.sensitivity
	$(BIN)/python -m tests.benchmarks.equalization
	$(BIN)/python -m tests.benchmarks.quantization_table
	$(BIN)/python -m tests.benchmarks.cross_runtime
	$(BIN)/python -m tests.benchmarks.training demo

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
