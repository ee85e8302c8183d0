"""Where things are. Constants only: no other module builds a path from scratch."""

import os
from pathlib import Path

import pooch

#: The checkout (or the unpacked bundle of a page).
ROOT = Path(__file__).resolve().parent.parent
#: The helper package itself; its files are inputs of the runs that import them.
PACKAGE = ROOT / "epigen_utils"

#: Small tables that the project ships, and the files that describe all others.
DATA = ROOT / "data"
REGISTRY = DATA / "registry.yml"
CLAIMS = DATA / "claims"
CONTRASTS = DATA / "contrasts.csv"
#: Numbers of runs too large for the profile that shows them: <profile>-<device>.json.
BENCHMARKS = ROOT / "benchmarks"
RECORDED = DATA / "recorded"

#: Source notebooks, without outputs, and the runs of each.
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"

#: Pages by hand, and beside them the pages that runs become.
BOOK = ROOT / "book"
TOC = BOOK / "_toc.yml"
GENERATED = BOOK / "_generated"

#: Rules from a sample sheet to counts, which the Snakefile includes.
READS_RULES = ROOT / "workflow" / "reads.smk"

#: What runs leave: <profile>/<paper>/<NN_slug>/<run>/.
RESULTS = ROOT / "results"

#: The site, its table of contents, and the logs and locks of a build.
BUILD = ROOT / "_build"
SITE = BUILD / "html"
BUILT_TOC = BUILD / "toc.yml"
BUILD_LOG = BUILD / "build.log"
SITE_LOG = BUILD / "site.log"
BUILD_LOCK = BUILD / "build.lock"
JOBS_LOCK = BUILD / "jobs.lock"

#: Downloads, shared by all checkouts of one user.
CACHE = Path(os.environ.get("EPIGEN_CACHE") or pooch.os_cache("epigen"))
#: A folder that is looked in before anything is downloaded; empty when unset.
MIRROR = os.environ.get("EPIGEN_DATA_MIRROR", "")
