"""epigen: check and fetch data, build the book, show claims, publish a model. It passes on; it computes nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from epigen_utils import paths, processes
from epigen_utils.book import build, progress, runs
from epigen_utils.commands import archives, own_data, parameter_files, skeletons
from epigen_utils.data import registry
from epigen_utils.errors import DataError, UnreachableError, one_line, suggest
from epigen_utils.files import write_atomically
from epigen_utils.reads import pipeline

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Data sets of the registry.", no_args_is_help=True)
app.add_typer(data_app, name="data")
new_app = typer.Typer(help="Skeletons of a chapter or a data set, which pass the tests.", no_args_is_help=True)
app.add_typer(new_app, name="new")
console = Console()

Group = Annotated[
    str, typer.Option("--group", "--label", help="Column of obs (or of the sample table): groups, or states of cells.")
]
Reference = Annotated[str, typer.Option(help="Group that the others are compared with.")]
Donor = Annotated[str, typer.Option(help="Column that says which donor each sample is from.")]
Metadata = Annotated[str, typer.Option(help="Sample table of a count matrix, or table of cells of 10x Genomics.")]
Species = Annotated[str, typer.Option(help="Such as mus_musculus; for orthologs, where the gene ids do not tell.")]
GenesIn = Annotated[str, typer.Option(help="rows or columns of your file; found out where it is not given.")]
RoundCounts = Annotated[bool, typer.Option("--round-counts", help="Round counts that are estimates (RSEM, salmon).")]
SizeFactors = Annotated[str, typer.Option(help="poscounts where no gene is detected in every sample; ratio otherwise.")]
Kind = Annotated[str, typer.Option(help="cells or bulk, if what is found out is wrong.")]
Keep = Annotated[str, typer.Option(help="Cells to keep, as column=value,value.")]
Start = Annotated[str, typer.Option(help="State whose cells are perturbed.")]
Goal = Annotated[str, typer.Option(help="State that they should move towards.")]
Teacher = Annotated[str, typer.Option(help="Pretrained Geneformer: a folder, or owner/name:subfolder of a hub.")]
Distil = Annotated[bool, typer.Option("--distil", help="Pretrain on the cells if no teacher is given, and distil it.")]
Sheet = Annotated[
    str, typer.Option(help="A sample sheet of FASTQ files: counts are made of them, then the book's part on these.")
]
Genome = Annotated[str, typer.Option(help="Of the reads: a name (epigen data list --kind reference), or a FASTA file.")]
Gtf = Annotated[str, typer.Option(help="Annotation of a genome that is given as a FASTA file.")]
Aligner = Annotated[str, typer.Option(help="star, or parabricks on a GPU.")]
Index = Annotated[str, typer.Option(help="A STAR index of this genome that was made before.")]
Adapter = Annotated[str, typer.Option(help="What adapters begin with, or auto; Illumina's by default.")]
Profile = Annotated[str, typer.Option(help="demo, real or paper: which data, at which size.")]


@app.command("check")
def check_dataset(
    context: typer.Context,
    dataset: str,
    metadata: Metadata = "",
    group: Group = "",
    reference: Reference = "",
    donor: Donor = "",
    genes_in: GenesIn = "",
    species: Species = "",
    round_counts: RoundCounts = False,
    size_factors: SizeFactors = "",
    kind: Kind = "",
    design: Annotated[str, typer.Option(help="Formula, such as '~batch + condition'; by default the group's.")] = "",
    contrast: Annotated[
        str, typer.Option(help="variable,target,reference; by default all against the reference.")
    ] = "",
    task: str = "",
) -> None:
    """Say what is wrong with a data set before anything runs on it."""
    task = task or ("samples" if contrast else "")
    given = own_data.given_options(context.params)
    _print_lines(own_data.describe(dataset, given, task=task, design=design, contrast=contrast)[1])


@app.command("build")
def build_book(
    context: typer.Context,
    profile: Profile = "demo",
    dataset: Annotated[
        str, typer.Option(help="Your own counts or cells, a file or a folder of 10x: they get a part of the book.")
    ] = "",
    metadata: Metadata = "",
    group: Group = "",
    reference: Reference = "",
    donor: Donor = "",
    species: Species = "",
    genes_in: GenesIn = "",
    round_counts: RoundCounts = False,
    size_factors: SizeFactors = "",
    kind: Kind = "",
    keep: Keep = "",
    start: Start = "",
    goal: Goal = "",
    teacher: Teacher = "",
    distil: Distil = False,
    sheet: Sheet = "",
    genome: Genome = "",
    gtf: Gtf = "",
    aligner: Aligner = "",
    index: Index = "",
    adapter: Adapter = "",
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Run this notebook (paper/NN_slug, or with --run) and what it needs; may be repeated; no site."
        ),
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help="A list of data sets (YAML): each gets a part, and one page compares them.")
    ] = None,
    zip_file: Annotated[Path | None, typer.Option("--zip", help="Pack the site as one zip, to pass on.")] = None,
    with_data: Annotated[bool, typer.Option("--with-data", help="Put your own data into the zip too.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Without chapters on your data that take over a minute.")
    ] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what would run on your data, and stop.")] = False,
    cores: Annotated[int, typer.Option(help="Cores to use.", min=1)] = os.cpu_count() or 1,
    executor: Annotated[str, typer.Option(help="A Snakemake workflow profile, such as workflow/slurm.")] = "",
) -> None:
    """Build the book, or one part of it, on a profile or on your own data."""
    if only and zip_file:
        raise DataError("--zip packs a whole site, and --only builds none; leave one of them out")
    if with_data and not zip_file:
        raise DataError("--with-data goes with --zip; give it")
    if zip_file:
        archives.check_target(zip_file)
    own = _own_data(own_data.given_options(context.params), batch)
    own = [user_data | {"quick": quick} for user_data in own]
    planned = runs.plan_runs(profile, *own)
    for user_data in own:
        if "refused" not in user_data:
            _print_plan([run for run in planned if run.name == "main"], user_data)
    refused = any("refused" in user_data for user_data in own)
    if plan_only:
        raise typer.Exit(refused)
    chosen = _chosen_runs(planned, only)
    _install_tools(chosen)
    _check_reads(chosen, by_name=bool(only), elsewhere=bool(executor))
    plan = build.Plan(profile, own, planned, cores, executor)
    if only:
        build.do_runs(plan, chosen)
    else:
        build.build_book(plan)
    if zip_file:
        archives.write_zip(zip_file, own, command=["epigen", *sys.argv[1:]], with_data=with_data)
    outputs = [run.results for run in chosen] if only else [paths.SITE / "index.html"]
    _print_lines([f"done: {os.path.relpath(output)}" for output in [*outputs, *([zip_file] if zip_file else [])]])
    raise typer.Exit(refused)


def _own_data(given: dict, batch: Path | None) -> list[dict]:
    """The user's data sets, checked; what was found out about them is printed, and which of a list are refused."""
    if batch and given:
        raise DataError(f"--{next(iter(given)).replace('_', '-')} is of one data set; write it in {batch}")
    own = []
    for user_data, lines in own_data.check_list(batch) if batch else [own_data.user_data(given)] if given else []:
        _print_lines(lines)
        if why := user_data.get("refused"):
            print(f"epigen: {batch}: {user_data['name']}: {why}", file=sys.stderr)
        own.append(user_data)
    if own and all("refused" in user_data for user_data in own):
        raise DataError(f"{batch}: each of its data sets is refused; correct one")
    return own


@app.command("sweep")
def run_sweep(
    profile: Profile = "sweeps",
    device: Annotated[str, typer.Option(help="What it runs on, as the recorded file names it.")] = "cpu",
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run and record this notebook (paper/NN_slug, or with --run) alone; may be repeated."),
    ] = None,
    cores: Annotated[int, typer.Option(help="Cores to use.", min=1)] = os.cpu_count() or 1,
) -> None:
    """Run a profile that is too large for the book, and keep its numbers under data/recorded/."""
    from epigen_utils.book import recorded

    planned = runs.plan_runs(profile)
    chosen = _chosen_runs(planned, only)
    build.do_runs(build.Plan(profile, [], planned, cores), chosen)
    output = recorded.record_runs(profile, device, only or ())
    _print_lines([f"done: {os.path.relpath(output)}"])


def _chosen_runs(planned: list[runs.Run], only: list[str] | None) -> list[runs.Run]:
    """The planned runs of some keys, or all."""
    by_key = {run.key: run for run in planned}
    for key in only or []:
        if key not in by_key:
            raise DataError(f"--only {key}: no such run; {suggest(key, by_key)}")
    return [by_key[key] for key in only or by_key]


def _print_plan(planned: list[runs.Run], user_data: dict) -> None:
    """Print the chapters that run on the user's data, with time and memory, and those that are left out, with why."""
    name = user_data.get("name") or Path(user_data.get("sheet") or user_data["dataset"]).name
    if user_data.get("kind") != "cells" and user_data.get("sizes") is not None and len(user_data["sizes"]) < 2:
        print(f"epigen: {name}: no two groups to compare; there are only counts", file=sys.stderr)
        return
    rows = progress.forecast(planned, user_data)
    _print_table(f"On {name}", rows, ["chapter", "title", "minutes", "GB"])
    line = "Times are those recorded with the book's data. "
    line += f"--only CHAPTER--{runs.user_run(user_data)} runs one chapter, "
    _print_lines([line + "--quick leaves out what takes over a minute, --plan stops here."])


def _install_tools(planned: list[runs.Run]) -> None:
    """Install missing programs if the user is root and has apt-get, and print the chapters that are left out."""
    missing = runs.missing_tools(planned)
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"epigen: installing {', '.join(sorted(set(sum(missing.values(), []))))} (make tools)", file=sys.stderr)
        command = ["make", "--no-print-directory", "tools"]
        subprocess.run(command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, check=False)  # nobody is asked in a build
        missing = runs.missing_tools(planned)
    for notebook, tools in missing.items():
        print(
            f"epigen: {notebook} is left out: {', '.join(tools)} not installed (make tools, as root or by conda)",
            file=sys.stderr,
        )


def _check_reads(chosen: list[runs.Run], *, by_name: bool, elsewhere: bool) -> None:
    """Check each pipeline from reads to counts before the build starts, and print what it needs.

    Parameters
    ----------
    by_name
        Whether the user chose these runs (``--only``). Other runs are skipped if their programs are missing, unless
        they are on the user's own sheet.
    elsewhere
        Whether the jobs run on other machines, with other programs and memory.
    """
    missing = runs.missing_tools(chosen)
    for run in chosen:
        if not run.reads:
            continue
        if by_name or run.notebook not in missing or run.parameters["sheet"] not in registry.entries():
            try:
                message = pipeline.check_resources(run.parameters, run.reads, run.key, remote=elsewhere)
            except UnreachableError:
                continue  # the run will say so, as one of any other chapter
            if not run.metrics.exists():
                print(f"epigen: {message}", file=sys.stderr)


@app.command("fetch")
def fetch_data(
    names: Annotated[list[str] | None, typer.Argument(help="Names of data sets (epigen data list).")] = None,
    profile: Annotated[str, typer.Option(help="Fetch what the runs of this profile name: demo, real or paper.")] = "",
) -> None:
    """Fetch data sets, check their hashes and what is stated of them, and say what is missing; again, it goes on."""
    from tqdm import tqdm

    from epigen_utils.data import datasets, fetching

    chosen = list(dict.fromkeys([*(names or []), *(runs.profile_data(profile) if profile else [])]))
    if not chosen:
        raise DataError("epigen fetch: nothing to fetch; name data sets (epigen data list), or give --profile")
    # tqdm prints above its bar.
    incomplete, first_seen = fetching.fetch_all(chosen, tqdm.write)
    of_runs = [name for name in chosen if name not in incomplete and "runs" in registry.entry(name).files]
    incomplete |= {name for name in of_runs if not pipeline.fetch_reads(name, tqdm.write)}
    compared = [pair for name in chosen if name not in incomplete for pair in datasets.check_stated(name)]
    for _, line in compared:
        tqdm.write(line)
    if first_seen:
        tqdm.write(
            "# Hashes recorded at first sight; in data/registry.yml, these files replace those of the same names."
        )
        tqdm.write(registry.files_with_hashes(first_seen), end="")
    if incomplete or not all(holds for holds, _ in compared):
        raise typer.Exit(1)


@app.command("claims")
def show_claims(
    profile: Profile = "demo",
    csv: Annotated[Path | None, typer.Option(help="Write all claims to this CSV.")] = None,
) -> None:
    """Show every claim with what was reproduced and its verdict."""
    from epigen_utils.book import claims, ledger

    judged = claims.table(profile)
    if csv:
        write_atomically(csv, judged.to_csv(index=False))
    rows = ledger.summary_rows(judged)
    _print_table("Claims", rows.to_numpy().tolist(), list(rows))
    counts = ", ".join(f"{kind} {count}" for kind, count in claims.count_verdicts(judged).sum(axis=1).items())
    console.print(f"{counts} (page: {paths.SITE / 'claims.html'})", highlight=False, soft_wrap=True)


@app.command("push")
def push_model(
    folder: Annotated[Path, typer.Argument(help="A model as export.save_model writes it, such as chapter 9's.")],
    hub_id: Annotated[str, typer.Argument(help="owner/name: your account on the model hub, and the model's name.")],
    yes: Annotated[bool, typer.Option("--yes", help="Upload; without it, only say what would be uploaded.")] = False,
) -> None:
    """Say what of a model would be put on a model hub; with --yes, put it there with your own token."""
    from epigen_utils.distillation import publication

    planned = publication.plan(folder, hub_id)
    _print_lines([str(planned)])
    _print_lines([publication.upload(planned) if yes else "nothing is uploaded; give --yes to do so"])


@app.command("params")
def print_parameters(chapter: Annotated[str, typer.Argument(help="paper/NN_slug")]) -> None:
    """Print a chapter's parameters with their defaults, as a file that `papermill -f` takes."""
    print(parameter_files.as_yaml(chapter), end="")


@new_app.command("chapter")
def write_chapter(key: Annotated[str, typer.Argument(metavar="PAPER/NN_SLUG")]) -> None:
    """Write a chapter that runs, with its place in the profiles and the table of contents."""
    _print_lines([f"written: {os.path.relpath(path)}" for path in skeletons.new_chapter(key)])


@new_app.command("dataset")
def write_data_set(name: str) -> None:
    """Write an entry of the registry with small tables, and its card."""
    _print_lines([f"written: {os.path.relpath(path)}" for path in skeletons.new_data_set(name)])


@app.command("site", hidden=True)
def publish_site(
    profile: Profile = "demo",
    own: str = "[]",
    partial: Annotated[bool, typer.Option(help="Runs may be unfinished.")] = False,
) -> None:
    """Publish the pages of finished runs and build the site (called by the Snakefile)."""
    from epigen_utils.book import site

    data_sets = json.loads(own)
    processes.exit_with_build()
    site.build_site(profile, runs.plan_runs(profile, *data_sets), data_sets, partial=partial)


@data_app.command("list")
def list_data(kind: Annotated[str, typer.Option(help=f"Only one of {', '.join(registry.DATA_KINDS)}.")] = "") -> None:
    """List the data sets of the registry."""
    chosen = [entry for entry in registry.entries().values() if kind in ("", entry.kind)]
    if not chosen:
        raise DataError(f"--kind {kind}: no such kind; {suggest(kind, registry.DATA_KINDS)}")
    rows = []
    for entry in chosen:
        sources = ", ".join(sorted({file.source for file in entry.files.values()}))
        rows.append([entry.name, entry.kind, entry.nature, entry.species, sources, entry.title])
    _print_table("Data sets", rows, ["name", "kind", "nature", "species", "source", "title"])


@data_app.command("cards")
def print_cards() -> None:
    """Print data/README.md, a card for each data set."""
    print(registry.data_cards(), end="")


def _print_lines(lines: Iterable[str]) -> None:
    """Print lines as they are, whatever the width of the terminal."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_table(title: str, rows: list[list[str]], columns: list[str]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell).replace("[", "\\[") for cell in row))
    console.print(table)


def main() -> None:
    """Run a command; what the user can repair is printed as one line, with exit code 1."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no UTF-8
    try:
        app()
        return
    except MemoryError:
        message = f"{' '.join(sys.argv[1:3])}: takes more memory than there is; give less data, or a larger machine"
    except (DataError, OSError) as error:
        message = one_line(error)
        if not (message or error.filename):
            raise
        message = message or f"{error.filename}: cannot be read or written ({error.strerror}); check the path"
    print(f"epigen: {DataError(message)}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
