# make demo   a merge scored on the embedded samples, from nothing, in a few minutes on two cores
# make test   lint, types and all tests, real vLLM on the CPU included
# make check  lint, types and the fast tests: the edit loop
# IBERIAN_PIP_ARGS="--extra-index-url ..." adds pip options of your own.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
DEMO ?= .demo
export HF_HUB_OFFLINE := 1
export VLLM_CPU_KVCACHE_SPACE ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check lint install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml .ci/install
	.ci/install $(VENV)

demo: install
	@mkdir -p $(DEMO)
	$(PYTHON) -m lm_eval_iberian.tiny $(DEMO)
	cd $(DEMO) && IBERIAN_DATA=samples ../$(VENV)/bin/lm_eval --model merged \
	  --model_args recipe=merge.yml,max_model_len=4096 --tasks iberian_suite --limit 4 --output_path out
	$(VENV)/bin/iberian report $(DEMO)/out
	@echo
	@echo "These models have random weights: every score is at chance, and that is the point. It shows that the merge,"
	@echo "the engine and the suite work here. Now point recipe= at your own models, and IBERIAN_DATA at real documents."

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

check: lint
	$(PYTHON) -m pytest -m "not slow"

test: lint
	$(PYTHON) -m pytest

clean:
	rm -rf $(VENV) $(DEMO)
