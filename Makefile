# make book, make test: both set everything up by themselves. Needs Python 3.11 or newer, pip and make.
PYTHON ?= python3
PROFILE ?= demo
VENV := .venv
BIN := $(VENV)/bin
AUDIT := _build/audit
RELEASE := _build/release
# Words of licences that forbid some use, or reach who uses a program over a network; NVIDIA's runtime, which torch's CUDA
# build needs, is exempt.
REFUSED := Proprietary;Commercial;NonCommercial;Affero;AGPL;SSPL;BUSL
# pip's own bars are the progress of a long wait; a CI log is better without them.
QUIET := $(if $(CI),--quiet)
PIP = $(PYTHON) -m pip --disable-pip-version-check --python
# What is installed is compiled afterwards, by all cores; as in pip, a file for another Python is passed over.
PIP_INSTALL = $(PIP) $(BIN)/python install $(QUIET) --no-compile
# Each file is held to its hash: a lock names everything, and nothing is built by a tool that it does not name.
FROM_LOCK = --no-deps --no-build-isolation --require-hashes -r
ENTRIES = sed -nE '/^($(1))==/,/[^\\]$$/p' requirements.lock
TOOLS := fastqc fastp rna-star samtools subread multiqc
R := r-base-core r-bioc-deseq2 r-cran-jsonlite
HAS_R := Rscript -e 'stopifnot(nzchar(sapply(c("DESeq2", "jsonlite"), function(p) system.file(package = p))))'
DRAWS ?= 20
SEED ?= 1

.PHONY: book test test-slow properties rehearsal lint audit vulnerabilities release lock hashes cards sweeps tools r venv clean

book: $(VENV)/.ready
	@$(BIN)/epigen build --profile $(PROFILE)

test: $(VENV)/.ready
	@$(BIN)/python -m pytest

test-slow: $(VENV)/.ready
	@$(BIN)/python -m pytest -m slow

# Properties on a thousand examples each, and random cells encoded and perturbed beside plain versions; RECORD=<file> writes
# the report of these.
properties: $(VENV)/.ready
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -m hypothesis --hypothesis-seed=$(SEED) --hypothesis-show-statistics
	@$(BIN)/python tests/fuzz_encoding.py --draws $(DRAWS) --seed $(SEED) $(if $(RECORD),--record $(RECORD))

# Every run of profile `paper` in minutes, on stand-ins that a local server has.
rehearsal: $(VENV)/.ready
	@$(BIN)/python tests/rehearse.py

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/words.py

venv: $(VENV)/.ready

# What the workflows allow, secrets in committed files, licences of what is installed: all offline.
audit: $(AUDIT)/.ready $(VENV)/.ready
	@$(BIN)/pre-commit run workflows --all-files
	@$(BIN)/pre-commit run secrets --all-files
	@$(AUDIT)/bin/pip-licenses --python $(BIN)/python --order license --with-urls --format csv \
	  --ignore-packages $$(sed -nE 's/^([a-z0-9.-]+)==.*/\1/p' .ci/cuda.lock) \
	  --fail-on '$(REFUSED)' --partial-match --output-file _build/licences.csv

# Known ones of the locked releases; asks the package index.
vulnerabilities: $(AUDIT)/.ready
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r .ci/cuda.lock
	$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r .ci/audit.lock

$(AUDIT)/.ready: .ci/audit.lock
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv --without-pip $(AUDIT)
	@$(PIP) $(AUDIT)/bin/python install --quiet --no-compile $(FROM_LOCK) .ci/audit.lock
	@touch $@

# pip of the machine fills the environment, so that a Python without ensurepip will do. A build of torch on the machine's own
# disk comes first: pip prefers a file whose hash an index tells, and would take the CUDA build.
$(VENV)/.ready: requirements.lock .ci/cuda.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed; set PYTHON=" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@echo "make: installing the locked packages into $(VENV) (about 2.5 GB; once)"
	@$(call ENTRIES,torch) | $(PIP_INSTALL) --no-index $(FROM_LOCK) /dev/stdin >/dev/null 2>&1 || true
	@$(call ENTRIES,setuptools|wheel) | $(PIP_INSTALL) $(FROM_LOCK) /dev/stdin
	@$(PIP_INSTALL) $(FROM_LOCK) requirements.lock
	@! grep -q '^Requires-Dist: nvidia' $(VENV)/lib/python*/site-packages/torch-*/METADATA || $(PIP_INSTALL) $(FROM_LOCK) .ci/cuda.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@touch $@

# PYTHON=<the oldest Python 3.11 at hand>: packages leave early releases behind.
lock:
	$(PYTHON) .ci/lock.py

# The same releases; PIP_EXTRA_INDEX_URL=<address of CPU wheels> adds the hashes of these for every Python.
hashes:
	$(PYTHON) .ci/lock.py --keep

cards: $(VENV)/.ready
	$(BIN)/epigen data cards > data/README.md.part && mv data/README.md.part data/README.md

# What is too large for the book; its numbers go to data/recorded/.
sweeps: $(VENV)/.ready
	@$(BIN)/epigen sweep

# The wheel, the site, what it was built with (CycloneDX) and the sums of these. Equal sources give equal bytes.
release: $(VENV)/.ready $(AUDIT)/.ready
	@test -f _build/html/index.html || { echo "make release: no site in _build/html; make book first" >&2; exit 1; }
	@rm -rf $(RELEASE) $(RELEASE).part && mkdir -p $(RELEASE).part
	@$(PIP) $(BIN)/python wheel --quiet --no-deps --no-build-isolation --wheel-dir $(RELEASE).part .
	@tar --sort=name --mtime=@$$(git log -1 --format=%ct) --owner=0 --group=0 --numeric-owner -C _build \
	  -cf $(RELEASE).part/site.tar html && gzip -n $(RELEASE).part/site.tar
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o $(RELEASE).part/sbom.json $(BIN)/python
	@cd $(RELEASE).part && sha256sum -- * > ../SHA256SUMS.part && mv ../SHA256SUMS.part SHA256SUMS
	@mv $(RELEASE).part $(RELEASE) && cat $(RELEASE)/SHA256SUMS

# The read-processing tools are the one thing that pip cannot bring. A person at the terminal is asked; CI and `make book` go on.
ASK = if [ -t 0 ] && [ -z "$(CI)" ]; then printf 'Go on? [y/N] '; read -r answer; [ "$$answer" = y ] || exit 1; fi
tools:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "make tools: apt-get installs $(TOOLS) and what these need"; $(ASK); \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TOOLS) >/dev/null; \
	elif command -v conda >/dev/null; then \
	  echo "make tools: conda installs what environment.yml lists, into its environment epigen"; $(ASK); \
	  conda env update --file environment.yml; \
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
