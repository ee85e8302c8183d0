# The order and the dependencies of the runs, for a machine: a job for each run of a notebook, then the site; in a first
# build a site also after each early stage. What a notebook needs stands in its own metadata; which runs there are, in notebooks/profiles/.
#
# A run is done again when its notebook, a module of epigen_utils that it imports (directly or through others, at their
# top), a table of data/ that these name, its chapter's claims, a parameter, or the registry's entry of a data set has changed
# in content, all of which its fingerprint holds, or a file of the user's has changed. As inputs, the hundreds of modules would
# keep Snakemake busy: it looks at the inputs of all waiting jobs several times a second. Nor would an older file that takes
# the place of a newer one count. The site has such a fingerprint too.
import json
import sys

from epigen_utils import paths
from epigen_utils.book import build, progress, runs
from epigen_utils.reads.pipeline import reachable_pipeline

PROFILE = config.get("profile", "demo")
OWN = config.get("own", [])
PLAN = runs.without_missing_tools(runs.plan_runs(PROFILE, *OWN))
# From reads to counts, for each run that has a sample sheet; the name of its rules begins with the run's. Without its reads a
# run has no such rules, and fails by itself, so that the others are done.
PIPELINES = {
    run.rule + "_": pipeline
    for run in PLAN
    if run.reads and (pipeline := reachable_pipeline(run.parameters, run.reads))
}
# A first build makes a site after each early stage; what these need goes first, then the longest chains of runs.
STAGES = build.early_stages(PLAN, runs.user_run_names(OWN)) if int(config.get("early", 0)) else []
PRIORITY = {key: int(seconds) for key, seconds in build.chain_seconds(PLAN, progress.recorded_seconds(PROFILE)).items()}
# The steps from reads to counts are many and short: they go with the longest chain.
READS_PRIORITY = max(PRIORITY.values(), default=0)
for stage, stage_runs in enumerate(reversed(STAGES), 1):
    PRIORITY |= {run.key: stage * 1_000_000 for run in stage_runs}
STAGE_SITES = build.stage_sites(PROFILE, STAGES)
SITE = f"{{params.python:q}} -m epigen_utils.cli site --profile {PROFILE} --own {{params.own:q}}"


rule all:
    input:
        paths.SITE_DONE,


include: "workflow/reads.smk"


for run in PLAN:

    for job in range(run.search_jobs):

        rule:
            name: f"{run.rule}_grid_{job}"
            input: run.user_files
            output: touch(run.searched(job))
            params: run=run.to_json(), fingerprint=run.fingerprint, python=sys.executable, job=job
            priority: PRIORITY[run.key]
            threads: run.needs.threads
            shell: "{params.python:q} -m epigen_utils.warm_start 'import torch' epigen_utils.commands.search_jobs {params.run:q} {params.job}"

    rule:
        name: run.rule
        input:
            run.user_files,
            runs.upstream_metrics(run, PLAN),
            PIPELINES[run.rule + "_"].results if run.rule + "_" in PIPELINES else [],
            [run.searched(job) for job in range(run.search_jobs)],
        output: run.executed, run.metrics
        params: run=run.to_json(), fingerprint=run.fingerprint, python=sys.executable
        priority: PRIORITY[run.key]
        threads: run.needs.threads
        shell: "{params.python:q} -m epigen_utils.warm_start 'import papermill' epigen_utils.book.runs {params.run:q} {threads}"


for stage, stage_runs in enumerate(STAGES):

    rule:
        name: f"site_{stage}"
        input: [file for run in stage_runs for file in (run.executed, run.metrics)], STAGE_SITES[:stage]
        output: touch(STAGE_SITES[stage])
        params: python=sys.executable, own=json.dumps(OWN)
        priority: 10_000_000
        shell: SITE + " --partial"


rule site:
    input:
        [file for run in PLAN for file in (run.executed, run.metrics)],
    output:
        touch(paths.SITE_DONE),
    params:
        python=sys.executable,
        plan=[run.key for run in PLAN],
        fingerprint=build.site_fingerprint(),
        own=json.dumps(OWN),
    shell:
        SITE
