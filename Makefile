# `make demo` from a fresh clone: everything is installed into .venv, then the simulation runs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo venv deps model build test lint slow soak clean distclean system colcon

PYTHON ?= python3
# The PyTorch that the model and its tests use. PyPI's build for Linux brings CUDA along (gigabytes);
# a machine without a GPU can name a smaller one, for example TORCH='./torch-2.13.0+cpu-....whl'.
TORCH ?= torch==2.13.0
DEMO_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Each stamp says that its step was done with these inputs; the next run skips it.
STAMPS := $(VENV)/stamps

# Another ROS sourced in this shell must not leak into the environment built here.
unexport PYTHONPATH
unexport AMENT_PREFIX_PATH
unexport CMAKE_PREFIX_PATH
unexport COLCON_PREFIX_PATH
unexport LD_LIBRARY_PATH
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Errors only: the names of sixty wheels would bury the demo's own lines.
PIP := $(BIN)/python -m pip install -qq
EXTRAS := sim,dev

SOURCES := $(shell find msg srv action cmake scripts launch config urdf wam_ros -type f \
	-not -name '*.pyc' 2>/dev/null) CMakeLists.txt package.xml setup.py pyproject.toml

help: ## show this help
	@echo 'wam_ros: a World-Action Model on a robot through ROS 2'
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(STAMPS)/build $(STAMPS)/model ## install what is missing, then run the AgiBot G1 in simulation
	@$(BIN)/wam demo $(DEMO_ARGS)

venv: $(STAMPS)/venv
deps: $(STAMPS)/deps
model: $(STAMPS)/model ## PyTorch and what the model and recordings need, into .venv
build: $(STAMPS)/build ## install the package, messages included, into .venv (seconds when warm)

system: ## check compiler, Python headers and libosmesa6; install them when root
	@PYTHON='$(PYTHON)' bash scripts/system_packages

$(STAMPS)/venv: scripts/system_packages
	@PYTHON='$(PYTHON)' bash scripts/system_packages
	@test -x $(BIN)/python || { echo 'making $(VENV)'; $(PYTHON) -m venv $(VENV); }
	@$(PIP) --upgrade pip
	@mkdir -p $(STAMPS) && touch $@

# The build requirements go into the environment itself, so that a rebuild needs no isolation and
# takes seconds.
$(STAMPS)/deps: pyproject.toml scripts/requirements.py $(STAMPS)/venv
	@echo 'installing dependencies into $(VENV)'
	@$(BIN)/python scripts/requirements.py '$(EXTRAS)' > $(STAMPS)/requirements.txt
	@$(PIP) -r $(STAMPS)/requirements.txt
	@touch $@

# PyTorch comes first and alone, so that no dependency draws in another build of it.
$(STAMPS)/model: pyproject.toml $(STAMPS)/deps
	@echo 'installing $(TORCH) and what model and recordings need'
	@$(PIP) '$(TORCH)'
	@$(BIN)/python scripts/requirements.py --extras-only wam,record > $(STAMPS)/model.txt
	@$(PIP) -r $(STAMPS)/model.txt
	@touch $@

# It pins NumPy 1, so it is not installed: the tests import it from its wheel.
$(STAMPS)/peers: $(STAMPS)/deps
	@$(BIN)/python -m pip download -q --no-deps --dest $(VENV)/share/wheels openpi-client==0.1.2 \
		&& touch $@ || echo 'openpi-client cannot be fetched: its tests will be skipped'

$(STAMPS)/build: $(SOURCES) $(STAMPS)/deps
	@echo 'building wam_ros'
	@$(PIP) --no-build-isolation --no-deps --force-reinstall .
	@touch $@

lint: $(STAMPS)/build $(STAMPS)/model ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

test: lint $(STAMPS)/peers ## ruff, mypy, pip check and the tests
	@$(BIN)/python -m pip check
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup -p no:cacheprovider test

slow: $(STAMPS)/build $(STAMPS)/model ## the tests that take minutes
	@$(BIN)/python -m pytest -q -m slow test

soak: $(STAMPS)/build ## ten minutes of random faults against a real executor
	@$(BIN)/python -m pytest -q -s -m slow test/test_faults_soak.py

colcon: $(STAMPS)/deps ## build with colcon, against the ROS wheels of .venv
	@$(PIP) colcon-common-extensions
	@V="$$PWD/$(VENV)"; PATH="$$V/bin:$$PATH" AMENT_PREFIX_PATH="$$V" CMAKE_PREFIX_PATH="$$V" \
		$(BIN)/colcon build --packages-select wam_ros --symlink-install \
		--cmake-args -DPython3_EXECUTABLE="$$V/bin/python" -DBUILD_TESTING=OFF

clean: ## remove what was built; .venv stays
	@rm -rf build install log dist demo_out wam_ros.egg-info $(STAMPS)/build \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find wam_ros test launch -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	@rm -rf $(VENV)
