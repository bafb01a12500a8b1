# make demo      trains tiny models, merges and sweeps them on two cores; at the end a page to look at
# make check     lint, types, the quick tests, and all fast tests of what was changed: the edit loop
# make fast      lint, types and all fast tests
# make test      lint, types and the tests that CI runs, real vLLM on the CPU included
# make test-all  these, and what repeats them at length: every architecture in vLLM, toys trained anew, benchmark scripts
# make mutants   puts known faults in, one by one, and sees whether the fast tests notice (tests/mutants/README.md)
# IBERIAN_PIP_ARGS="--extra-index-url ..." adds pip options of your own.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
DEMO ?= .demo
WORKERS ?= 2
export HF_HUB_OFFLINE := 1
export VLLM_CPU_KVCACHE_SPACE ?= 1
export TOKENIZERS_PARALLELISM := false
# Two workers with two threads of torch each have two cores: a thread that waits must not keep one busy.
export OMP_WAIT_POLICY ?= passive
# Where an image sets it, every process compiles every module, and pytest rewrites every test, again and again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check fast durations mutants lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml .ci/install
	.ci/install $(VENV)

demo: install
	@mkdir -p $(DEMO)
	$(VENV)/bin/iberian toy --out $(DEMO)/toys
	cd $(DEMO) && ../$(VENV)/bin/lm_eval --model merged \
	  --model_args recipe=toys/merge-basque.yml,max_model_len=512 --tasks toy_eu --output_path out
	$(VENV)/bin/iberian report $(DEMO)/out
	cd $(DEMO) && ../$(VENV)/bin/iberian sweep preset:toy/figure1 --set language=eu --out run
	@echo
	@echo "These are toys of a million parameters: what they show is what a merge does, not how well. Open the page in a"
	@echo "browser: $(DEMO)/run/report/report.html. Now point recipe= at your own models, and IBERIAN_DATA at real documents."

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

check: lint
	$(PYTHON) -m pytest -p tests.quick $(FAST)

fast: lint
	$(PYTHON) -m pytest $(FAST)

# Which tests are quick: tests/quick.py.
durations: install
	$(PYTHON) -m pytest $(FAST) --durations=0 --durations-min=0.005 > .durations
	$(PYTHON) -m tests.quick .durations && rm .durations

test: lint
	$(PYTHON) -m pytest $(BY_FILE) -m "not nightly" $(IN_ORDER)

test-all: lint
	$(PYTHON) -m pytest $(BY_FILE) $(IN_ORDER)

FAST := -n $(WORKERS) --dist=worksteal -m "not slow and not nightly"
# A file's engines are shared by its tests, so a file stays with one worker; those with engines come first.
BY_FILE := -n $(WORKERS) --dist=loadfile --no-loadscope-reorder
IN_ORDER := tests/lm_eval_iberian tests/faults tests/merge_hooks tests/tasks tests/ifeval_multi $(wildcard tests/test_*.py)

mutants: install
	$(PYTHON) tests/mutants/run.py

clean:
	rm -rf $(VENV) $(DEMO)
