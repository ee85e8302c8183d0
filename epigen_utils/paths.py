"""Locations of files and folders. Constants only: all other modules derive their paths from these."""

import os
from pathlib import Path

import pooch

#: The checkout (or the unpacked bundle of a page).
ROOT = Path(__file__).resolve().parent.parent
#: The helper package; its files are inputs of the runs that import them.
PACKAGE = ROOT / "epigen_utils"

#: Small tables shipped with the project, and the files that describe all other data.
DATA = ROOT / "data"
REGISTRY = DATA / "registry.yml"
CLAIMS = DATA / "claims"
CONTRASTS = DATA / "contrasts.csv"
#: Benchmark scripts and their results: <name>.json.
BENCHMARKS = ROOT / "benchmarks"
#: Seconds of each page and file of tests, and of a calibration loop on the same machine.
TIMES = BENCHMARKS / "times.json"
#: Results of runs too large for the profile that shows them: <profile>-<device>.json.
RECORDED = DATA / "recorded"

#: Source notebooks, without outputs, and the profiles that list the runs of each.
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"

#: Hand-written pages, and beside them the pages generated from runs.
BOOK = ROOT / "book"
TOC = BOOK / "_toc.yml"
GENERATED = BOOK / "_generated"

#: Rules from a sample sheet to counts; the Snakefile includes them.
READS_RULES = ROOT / "workflow" / "reads.smk"

#: Outputs of runs: <profile>/<paper>/<NN_slug>/<run>/.
RESULTS = ROOT / "results"

#: The site, the mark of a whole one, the folder in which Sphinx builds, and the logs and locks of a build.
BUILD = ROOT / "_build"
SITE = BUILD / "html"
SITE_DONE = BUILD / "site.done"
SPHINX = BUILD / "sphinx"
BUILD_LOG = BUILD / "build.log"
SITE_LOG = BUILD / "site.log"
BUILD_LOCK = BUILD / "build.lock"
JOBS_LOCK = BUILD / "jobs.lock"

#: Downloaded files, shared by all checkouts of one user.
CACHE = Path(os.environ.get("EPIGEN_CACHE") or pooch.os_cache("epigen"))
#: A folder searched before anything is downloaded; empty when unset.
MIRROR = os.environ.get("EPIGEN_DATA_MIRROR", "")
