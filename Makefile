# make book, make test: both set everything up by themselves. Needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv
BIN := $(VENV)/bin
# pip's own bars are the progress of a long wait; a CI log is better without them.
QUIET := $(if $(CI),--quiet)
# What is installed is compiled afterwards, by all cores; as in pip, a file for another Python is passed over.
PIP_INSTALL = $(PYTHON) -m pip --python $(BIN)/python install $(QUIET) --disable-pip-version-check --no-compile
TOOLS := fastqc fastp rna-star samtools subread multiqc
R := r-base-core r-bioc-deseq2 r-cran-jsonlite
HAS_R := Rscript -e 'stopifnot(nzchar(sapply(c("DESeq2", "jsonlite"), function(p) system.file(package = p))))'
DRAWS ?= 20
SEED ?= 1

.PHONY: book test test-slow rehearsal lint lock cards sweeps tools r venv clean

book: $(VENV)/.ready
	@$(BIN)/epigen build --profile $(PROFILE)

test: $(VENV)/.ready
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.ready
	@$(BIN)/python -m pytest -m slow

# Every run of profile `paper` in minutes, on stand-ins that a local server has.
rehearsal: $(VENV)/.ready
	@$(BIN)/python tests/rehearse.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

venv: $(VENV)/.ready

# pip of the machine fills the environment, so that a Python without ensurepip will do.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "make: installing the locked packages into $(VENV) (about 2.5 GB; once)"
	@$(PIP_INSTALL) -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

# PYTHON=<the oldest Python 3.11 at hand>: packages leave early releases behind.
lock:
	$(PYTHON) .ci/lock.py > requirements.lock.part && mv requirements.lock.part requirements.lock

cards: $(VENV)/.ready
	$(BIN)/epigen data cards > data/README.md.part && mv data/README.md.part data/README.md

# What is too large for the book; its numbers go to data/recorded/.
sweeps: $(VENV)/.ready
	@$(BIN)/epigen sweep

# The read-processing tools are the one thing that pip cannot bring.
tools:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TOOLS) >/dev/null; \
	elif command -v conda >/dev/null; then conda env update --file environment.yml; \
	else echo "make tools: needs root and apt-get, or conda (environment.yml); without them the reads chapter is left out" >&2; exit 1; fi

# Random analyses beside R DESeq2's; no part of the book. RECORD=<file> writes the report.
r: $(VENV)/.ready
	@if $(HAS_R) >/dev/null 2>&1; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(R) >/dev/null; \
	else echo "make r: needs R with DESeq2 and jsonlite, or root and apt-get to install them ($(R)); nothing was compared" >&2; exit 1; fi
	@$(BIN)/python tests/fuzz_deseq.py --draws $(DRAWS) --seed $(SEED) $(if $(RECORD),--record $(RECORD))

clean:
	rm -rf _build results book/_generated book/epilepsy book/geneformer .snakemake
