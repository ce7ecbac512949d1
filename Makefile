# make local      start a local AWS and deploy the stack to it; make stop ends it
# make demo       the same, then show what the stack does
# make test       run all tests: the three below
# make format     format the Rust and Python code
# make check      check formatting, lints, types, licenses, and the template
# make test-unit  run the unit, property and vector tests (no AWS)
# make test-e2e   run the journeys on a deployed stack; K=expression selects some, as pytest -k
# make bench      measure what Coffer adds to the AWS calls and the cryptography

SHELL := bash
COFFER_LOCAL ?= $(CURDIR)/.local
local := .local
python ?= python3
venvs := $(patsubst infra/local/requirements/%.in,%,$(wildcard infra/local/requirements/*.in))
node := NODE_DISABLE_COMPILE_CACHE=1 PATH="$(CURDIR)/$(local)/journeys/bin:$$PATH"

.PHONY: local demo stop test format check test-unit test-e2e tools bench
.SECONDARY:

local: tools
	@infra/local/up

demo: local
	@source $(COFFER_LOCAL)/env && $(local)/journeys/bin/python infra/demo.py

stop:
	@infra/local/down
	@for folder in $(wildcard $(CURDIR)/$(local)/test/[0-9]); do COFFER_LOCAL=$$folder infra/local/down; done

test: tools
	@infra/local/test

bench: local
	@source $(COFFER_LOCAL)/env && cargo bench --quiet -p coffer --bench overhead && \
		$(local)/journeys/bin/python infra/bench.py

format: $(local)/check/.installed
	@cargo fmt
	@$(local)/check/bin/ruff format --no-cache infra
	@$(local)/check/bin/ruff check --no-cache --fix infra

check: $(patsubst %,$(local)/%/.installed,check journeys sam) $(local)/cargo/bin/cargo-deny
	@infra/local/check

test-unit:
	@cargo test --workspace

test-e2e: tools
	@infra/local/journeys $(if $(K),-k '$(K)')

tools: $(venvs:%=$(local)/%/.installed) $(local)/node/bundle.js

# Tools are pinned by version and hash, and live in .local, in one environment each because their pins
# conflict. To update a pin, edit its .in file and run, with uv:
#   uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
#     --no-header --no-strip-extras NAME.in -o NAME.txt
$(local)/%/.installed: infra/local/requirements/%.txt
	@$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@echo "Installing $* into $(local)/$*"
	@$(python) -m venv --clear $(local)/$*
	@$(local)/$*/bin/pip --quiet --disable-pip-version-check install --no-deps --require-hashes -r $<
	@touch $@

$(local)/node/bundle.js: $(wildcard infra/journeys/node/*) $(local)/journeys/.installed
	@echo "Installing and bundling nodecredstash into $(local)/node"
	@mkdir -p $(local)/node && cp infra/journeys/node/* $(local)/node/
	@cd $(local)/node && $(node) npm ci --silent --no-audit --no-fund && $(node) npm run --silent bundle

$(local)/cargo/bin/cargo-deny:
	@echo "Building cargo-deny into $(local)/cargo (takes minutes, once)"
	@cargo install --quiet --locked --root $(local)/cargo --target-dir $(local)/cargo/target cargo-deny@0.20.2
	@rm -rf $(local)/cargo/target
