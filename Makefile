# The whole set-up of a fresh clone. `make demo` and `make test` need nothing before them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-slow lint bench bench-viewer fuzz crash clean

help:
	@echo "make demo   align the built-in sample study and draw its figure"
	@echo "make test   run linters and tests"
	@echo "make test-slow  run the tests that take longest, which make test leaves out"
	@echo "make lint   run the linters alone"
	@echo "make bench  measure reading, preparing and encoding"
	@echo "make bench-viewer  measure the window"
	@echo "make fuzz   feed thousands of damaged files to the readers"
	@echo "make crash  kill training runs at random moments"

setup: $(READY)

$(READY): pyproject.toml constraints.txt setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) sh setup.sh
	@touch $(READY)

demo: $(READY)
	@echo "1/3 the sample study"
	@$(BIN)/simcrop sample --out demo/study --overwrite
	@echo "2/3 a fresh model: its weights are untrained"
	@$(BIN)/simcrop models create starter --out demo/model --overwrite >/dev/null
	@echo "3/3 every sentence of the report against the scan"
	@$(BIN)/simcrop align demo/study/ct.nii.gz --report demo/study/report.txt \
		--model demo/model --out demo/result
	@echo
	@echo "The model is untrained, so the patches mean nothing yet; the path is real."
	@echo "Open the picture: $(CURDIR)/demo/result/figure.png"
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] && command -v xdg-open >/dev/null; then \
		xdg-open demo/result/figure.png >/dev/null 2>&1 || true; fi

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	rm -rf build/wheel && $(BIN)/python -m build --wheel --no-isolation --outdir build/wheel . >/dev/null
	$(BIN)/check-wheel-contents build/wheel

# Tests of the window run on a display without a screen, drawn by the processor.
XVFB := $(shell command -v xvfb-run >/dev/null 2>&1 && echo 'xvfb-run -a -s "-screen 0 1600x1000x24"')

test: lint
	OMP_NUM_THREADS=1 LIBGL_ALWAYS_SOFTWARE=1 $(XVFB) \
		$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" --durations=15

test-slow: $(READY)
	OMP_NUM_THREADS=1 LIBGL_ALWAYS_SOFTWARE=1 $(XVFB) $(BIN)/python -m pytest -m slow --durations=0

bench: $(READY)
	$(BIN)/python benchmarks/ingest.py --json benchmarks/results/ingest.json
	$(BIN)/python benchmarks/encode.py --precisions fp32 bf16 --json benchmarks/results/encode.json
	$(BIN)/python benchmarks/memory.py --json benchmarks/results/memory.json

bench-viewer: $(READY)
	LIBGL_ALWAYS_SOFTWARE=1 $(XVFB) $(BIN)/python benchmarks/viewer.py \
		--json benchmarks/results/viewer.json

fuzz: $(READY)
	$(BIN)/python tests/fuzz/campaign.py

crash: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash/crash_campaign.py --json benchmarks/results/crash.json \
		--doc docs/reliability.md

clean:
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
