# make demo   trains tiny models, merges and sweeps them on two cores; at the end a page to look at
# make test   lint, types and all tests, real vLLM on the CPU included
# make check  lint, types and the fast tests: the edit loop
# make mutants  puts known faults in, one by one, and sees whether the fast tests notice (tests/mutants/README.md)
# IBERIAN_PIP_ARGS="--extra-index-url ..." adds pip options of your own.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
DEMO ?= .demo
export HF_HUB_OFFLINE := 1
export VLLM_CPU_KVCACHE_SPACE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-engines test-rest check mutants lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml .ci/install
	.ci/install $(VENV)

demo: install
	@mkdir -p $(DEMO)
	$(VENV)/bin/iberian toy $(DEMO)/toys
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
	$(PYTHON) -m pytest -m "not slow"

# Two halves at a time, one for each core: engines here, all else there, and of ours so much that both take as long.
test: lint
	$(MAKE) -j2 --output-sync=target test-engines test-rest

THERE := $(wildcard tests/lm_eval_iberian/test_toy_*.py) tests/lm_eval_iberian/test_registration.py \
  $(patsubst %,tests/lm_eval_iberian/sweep/test_%.py,resume tune slurm)

test-engines:
	$(PYTHON) -m pytest tests/lm_eval_iberian $(THERE:%=--ignore=%)

test-rest:
	$(PYTHON) -m pytest tests/ifeval_multi tests/merge_hooks tests/tasks $(THERE)

mutants: install
	$(PYTHON) tests/mutants/run.py

clean:
	rm -rf $(VENV) $(DEMO)
