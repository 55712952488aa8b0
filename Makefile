# Every target does its own set-up: a fresh checkout needs Python 3.10 or newer and nothing else.
#
#   make demo      install, then run the main job on generated data
#   make test      install, then run the tests that take no longer than minutes
#   make test-all  make test, then the long tests and the integrations with other people's packages, which it installs.
#                  BUDGET=15m runs a sample of those that fits; SEED=N repeats a sample
#   make lint, make typecheck   format, rules, import direction; types
#   make dist      build the wheel and the sdist into dist/, install each into an empty environment and use it there
#   make bench     install, then benchmark the kernels
#   make throughput, make reading   where the time of a batch goes, and what reading files costs
#   make training     is training IO-bound? Steps fed by the loader against steps on a resident batch, by backbone
#   make augmenting   the race of augmentations against albumentations, torchvision and Kornia
#   make install   install into .venv
#   make gpu-test, make gpu-bench, make gpu-sanitize   all that needs a GPU, within ten minutes each; without a GPU they
#                  say so and succeed. Where no package registry is in reach: SITE=folder of unpacked packages
#
# EXTRA picks the build for this machine: cpu, cuda12 or cuda13. By default the GPU driver decides.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= rxrx_fast_demo
# Processes that run tests, and what make test-all draws its sample by.
WORKERS ?= 2
BUDGET  ?=
SEED    ?=
CUDA   := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: *\([0-9]*\).*/\1/p' | head -n 1)
EXTRA  ?= $(if $(filter 13 14 15,$(CUDA)),cuda13,$(if $(filter 12,$(CUDA)),cuda12,cpu))
# Without a GPU the CUDA kernels are still compiled to PTX and run on the simulator.
TESTED := $(EXTRA),test,bench,train,$(if $(filter cpu,$(EXTRA)),ptx,cupy$(subst cuda,,$(EXTRA)))
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check install -q -c constraints.txt

.PHONY: install demo test test-all dist lint typecheck bench throughput reading training augmenting gpu-install gpu-test gpu-bench gpu-sanitize clean

install: $(VENV)/.installed-$(EXTRA)
demo: install
	$(VENV)/bin/rxrx-fast demo --out $(OUT)

# A file's tests stay together: they share what their fixtures make.
PYTEST := $(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile
COVER  := --cov=rxrx_fast --cov=rxrx_kernels --cov-report=

test: $(VENV)/.tested-$(EXTRA)
	$(PYTEST) -m 'not slow and not integration' --durations=10 $(COVER) $(ARGS)
	@$(VENV)/bin/python tests/support/coverage_summary.py

test-all: test $(VENV)/.integrated-$(EXTRA)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m 'slow or integration' --installed --durations=20 \
		$(if $(BUDGET),--budget $(BUDGET)) $(if $(SEED),--seed $(SEED)) $(COVER) --cov-append $(ARGS)
	@$(VENV)/bin/python tests/support/coverage_summary.py

dist: $(VENV)/bin/python
	$(VENV)/bin/python tests/support/check_dist.py $(ARGS)

# Format, rules (pyproject.toml says which) and the import direction of the rooms.
lint: $(VENV)/.linted-$(EXTRA)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-logo

# rxrx_kernels lies in the folder kernels: mypy finds it by its name through a link.
typecheck: $(VENV)/.linted-$(EXTRA)
	@mkdir -p $(VENV)/typing && ln -sfn $(abspath kernels) $(VENV)/typing/rxrx_kernels
	MYPYPATH=$(VENV)/typing $(VENV)/bin/python -m mypy

bench: $(VENV)/.tested-$(EXTRA)
	$(VENV)/bin/python -m pytest benchmarks --benchmark-only $(ARGS)

throughput reading: $(VENV)/.tested-$(EXTRA)
	$(VENV)/bin/python benchmarks/$@.py $(ARGS)

# With torchvision's networks, in the build that goes with torch.
training: $(VENV)/.backbones-$(EXTRA)
	$(VENV)/bin/python benchmarks/$@.py $(ARGS)

# benchmarks/gpu.sh takes a Python that has all it needs, and only else asks for gpu-install.
gpu-install: $(VENV)/.tested-$(EXTRA)
gpu-test gpu-bench gpu-sanitize:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' SITE='$(SITE)' $(if $(filter file,$(origin OUT)),,OUT='$(OUT)') benchmarks/gpu.sh $(@:gpu-%=%)

augmenting: $(VENV)/.peers-$(EXTRA)
	$(VENV)/bin/python benchmarks/$@.py $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "rxrx_fast needs Python 3.10 or newer, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-$(EXTRA): $(VENV)/bin/python setup.py constraints.txt
	$(PIP) -e '.[$(EXTRA),bench]'
	@touch $@

$(VENV)/.tested-$(EXTRA): $(VENV)/.installed-$(EXTRA)
	$(PIP) -e '.[$(TESTED)]'
	@touch $@

$(VENV)/.linted-$(EXTRA): $(VENV)/.tested-$(EXTRA)
	$(PIP) -e '.[$(TESTED),lint]'
	@touch $@

$(VENV)/.integrated-$(EXTRA): $(VENV)/.tested-$(EXTRA)
	$(PIP) -e '.[$(TESTED),integrations]'
	@touch $@

$(VENV)/.backbones-$(EXTRA): $(VENV)/.tested-$(EXTRA)
	$(PIP) -e '.[$(TESTED),backbones]'
	@touch $@

$(VENV)/.peers-$(EXTRA): $(VENV)/.tested-$(EXTRA)
	$(PIP) -e '.[$(TESTED),peers]'
	@touch $@

clean:
	rm -rf $(VENV) build dist .coverage *.egg-info rxrx_fast_demo
