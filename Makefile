# Everything a developer or a CI machine runs, from a fresh clone, with Python 3.11+ (venv included) and make.
#
#   make demo      see it work (installs only the package itself)
#   make test      the whole suite, but for what is marked nightly or benchmark
#   make lint      ruff, rules and format          make types    mypy and pyright, both strict
#   make nightly   the long tests                  make bench    measurements: dist/benchmarks.json
#   make coverage  the suite, with the branches it missed
#   make docs      the reference, to read in a browser: dist/docs/index.html
#   make dist      sdist and wheel in dist/        make clean    forget everything built
#
# Variables:
#   PYTHON=/path/to/python   which Python, instead of the first on PATH that is new enough
#   VENV=dir                 where the environment lives, instead of .venv
#   WHEEL=dist/x.whl         install this wheel instead of an editable copy of the source
#   GUESTS=1                 install the servers and workers for tests/guests too, and skip no test for want of one
#   LEAST=90                 `make coverage` fails if a smaller share, in percent, was run
#   PYTEST_ARGS='-k fork'    more for pytest

PYTHON      ?=
VENV        ?= .venv
WHEEL       ?=
GUESTS      ?=
LEAST       ?=
PYTEST_ARGS ?=

bin := $(VENV)/bin
pip := $(bin)/python -m pip --quiet --disable-pip-version-check

# Stamps carry what they were made from in their names, so that another PYTHON or WHEEL is never mistaken for done.
venv_stamp := $(VENV)/.python$(subst /,-,$(PYTHON))
kind       := $(if $(WHEEL),$(notdir $(WHEEL)),source)
demo_stamp := $(VENV)/.demo-$(kind)
dev_stamp  := $(VENV)/.dev-$(kind)$(if $(GUESTS),-guests)
comma      := ,
extras     := dev$(if $(GUESTS),$(comma)guests)
forget     := @rm -f $(VENV)/.demo-* $(VENV)/.dev-*; $(pip) --quiet uninstall --yes cleanup-guard
peers      := pyterminate safe-exit aiorun honcho supervisor
new_enough := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: demo test nightly bench coverage lint types docs dist clean
.DELETE_ON_ERROR:

demo: $(demo_stamp)
	$(bin)/python examples/demo.py

test nightly: export CLEANUP_GUARD_REQUIRE_GUESTS := $(if $(GUESTS),1)
test: $(dev_stamp)
	$(bin)/pytest $(PYTEST_ARGS)

nightly: $(dev_stamp)
	$(bin)/pytest -m nightly $(PYTEST_ARGS)

bench: $(dev_stamp)
	@$(pip) install $(peers) || echo 'Not all peers can be installed: each row names those that it was not measured beside.'
	$(bin)/pytest -m benchmark --capture=no tests/benchmarks $(PYTEST_ARGS)

coverage: $(dev_stamp)
	$(bin)/coverage erase
	$(bin)/coverage run $(bin)/pytest $(PYTEST_ARGS)
	$(bin)/coverage combine --quiet
	$(bin)/coverage report $(if $(LEAST),--fail-under=$(LEAST))

lint: $(dev_stamp)
	$(bin)/ruff check .
	$(bin)/ruff format --check .

# The environment goes to pyright by PATH: --verifytypes does not listen to --pythonpath. The other platforms'
# branches are followed too: they are chosen by sys.platform, which mypy can be told. run and check need Linux.
types: export PATH := $(abspath $(bin)):$(PATH)
types: $(dev_stamp)
	$(bin)/mypy
	$(bin)/pyright
	$(bin)/pyright --verifytypes cleanup_guard --ignoreexternal
	$(bin)/mypy --platform darwin --exclude 'cleanup_guard/_(supervise|rehearse)/' cleanup_guard

# The warnings are about annotations whose names are imported for type checkers only: they are shown as they are written.
docs: $(dev_stamp)
	$(bin)/python -W ignore::UserWarning -m pdoc --docformat google --output-directory dist/docs cleanup_guard cleanup_guard.testing

dist: $(dev_stamp)
	rm -rf dist
	$(bin)/python -m build --outdir dist

clean:
	rm -rf $(VENV) dist htmlcov .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(venv_stamp):
	@python='$(PYTHON)'; \
	for candidate in $(if $(PYTHON),,python3 python3.15 python3.14 python3.13 python3.12 python3.11); do \
	    if $$candidate -c '$(new_enough)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'No Python 3.11 or newer on PATH: install one, or say make PYTHON=/path/to/python.' >&2; exit 1; \
	fi; \
	if ! $$python -c '$(new_enough)'; then \
	    echo "$$python is not Python 3.11 or newer: install one, or name another with PYTHON=." >&2; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python has no venv: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$python"; \
	$$python -m venv --clear $(VENV)
	@touch $@

# Uninstalled first: pip takes a wheel of the same version, built from other source, for already installed.
$(demo_stamp): $(venv_stamp) pyproject.toml $(WHEEL)
	$(forget)
	$(pip) install $(if $(WHEEL),'$(WHEEL)',--editable .)
	@touch $@

$(dev_stamp): $(venv_stamp) pyproject.toml $(WHEEL)
	$(forget)
	$(pip) install $(if $(WHEEL),'$(WHEEL)[$(extras)]',--editable '.[$(extras)]')
	@touch $(demo_stamp) $@
