"""Launch, look at, render and check the tables of claimed numbers: see experiments/README.md."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from lit_seqlm.command import exit_status
from lit_seqlm.console import for_tables
from lit_seqlm.errors import UserError, did_you_mean
from lit_seqlm.reproduce.aggregate import status
from lit_seqlm.reproduce.checks import check_paper
from lit_seqlm.reproduce.launch import launch
from lit_seqlm.reproduce.plan import Job, is_stale, output_root, plan, state
from lit_seqlm.reproduce.records import keep, load_records
from lit_seqlm.reproduce.render import markdown, terminal
from lit_seqlm.reproduce.table import PAPER_FILE, Row, Table, load_paper, load_table

HERE = Path(__file__).resolve().parent
SCALES = {"cpu": "reduced", "paper": "paper"}
console = for_tables()


def main() -> int:
    options = parser().parse_args()
    os.chdir(HERE.parent)  # run.py and outputs/ are there
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the runs are stopped too
    return exit_status(
        lambda: COMMANDS[options.command](options), "stopped; the same command continues."
    )


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "what", metavar="PAPER[/TABLE]", help="a folder here, and a YAML file in it"
    )
    common.add_argument(
        "--scale", choices=SCALES, help="only rows of this scale; launch: cpu unless rows are named"
    )
    common.add_argument(
        "--row", action="append", default=[], metavar="ID", help="only this row; may be repeated"
    )
    starts = commands.add_parser(
        "launch", parents=[common], help="run what is missing and keep the results"
    )
    starts.add_argument("--jobs", type=int, default=1, help="runs at once; they share the cores")
    starts.add_argument(
        "--trainer",
        choices=("cpu", "gpu"),
        help="where they run: cpu or gpu, an option of conf/trainer",
    )
    starts.add_argument(
        "--dry-run", action="store_true", help="only list the commands and their folders"
    )
    starts.add_argument("--print", action="store_true", help="show the table afterwards")
    commands.add_parser("status", parents=[common], help="which runs are there")
    renders = commands.add_parser("render", parents=[common], help="write the README of a paper")
    renders.add_argument("--print", action="store_true", help="show the tables here instead")
    checks = commands.add_parser(
        "check", help="fail if a number left its tolerance or a README is stale"
    )
    checks.add_argument("what", metavar="PAPER", nargs="?", help="all papers unless one is named")
    return top


def run_launch(options: argparse.Namespace) -> int:
    tables = chosen(options.what)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: say how many runs at once, 1 or more.")
    problems = []
    for table in tables:
        rows = rows_of(table, options, default_scale="reduced")
        jobs = plan(table, rows, output_root())
        more = (f"trainer={options.trainer}",) if options.trainer else ()
        if any(row.scale == "paper" for row in rows) and not more and not options.dry_run:
            raise UserError(
                f"{table.name}: these rows are at the paper's scale. Say --trainer gpu (or --trainer cpu)."
            )
        if options.dry_run:
            commands = [
                f"python run.py {shlex.join([*j.command, *more])}   # {j.folder}" for j in jobs
            ]
            print("\n".join(dict.fromkeys(commands)))  # rows may share a run
            continue
        problems += run_jobs(table, jobs, options.jobs, more)
        if options.print:
            console.print(terminal(table, load_records(table)))
            tell_where(jobs)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


def run_jobs(table: Table, jobs: list[Job], num_parallel: int, more: tuple[str, ...]) -> list[str]:
    """Launch, and keep each result as soon as it is there."""
    stale = [job for job in jobs if is_stale(job)]
    if stale:
        raise UserError(
            "\n".join(
                f"{job.title}: {job.folder} holds a run of another recipe than today's."
                for job in stale
            )
            + "\nMove these folders away, then launch again."
        )
    problems = []

    def finished(job: Job) -> None:
        try:
            keep(table, job)
        except UserError as error:
            problems.append(str(error))

    return launch(jobs, num_parallel, console, finished, more).problems + problems


def run_status(options: argparse.Namespace) -> int:
    for table in chosen(options.what):
        records = load_records(table)
        rows = rows_of(table, options)
        jobs = {job.key: job for job in plan(table, rows, output_root())}
        grid = RichTable(title=table.title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
        for column in ("row", "seed", "here", "kept", "folder"):
            grid.add_column(column, overflow="fold")
        for row in rows:
            if not row.experiment:
                grid.add_row(row.id, "-", status(table, row, {}), "-", "-")
            for seed in row.seeds if row.experiment else ():
                job = jobs[row.id, seed]
                kept = "yes" if table.results == "committed" and seed in records[row.id] else "-"
                here = "of another recipe" if is_stale(job) else state(job.folder)
                grid.add_row(row.id, str(seed), here, kept, str(job.folder))
        console.print(grid)
    return 0


def run_render(options: argparse.Namespace) -> int:
    if options.print:
        for table in chosen(options.what):
            console.print(terminal(table, load_records(table)))
        return 0
    folder = HERE / options.what.partition("/")[0]
    paper = load_paper(folder)
    tables = [load_table(folder, name) for name in paper.tables]
    text = markdown(
        paper, [(table, load_records(table)) for table in tables], render_command(folder)
    )
    (folder / "README.md").write_text(text)
    print(
        f"experiments/{folder.name}/README.md: {len(tables)} tables, "
        f"{sum(len(table.rows) for table in tables)} rows"
    )
    return 0


def run_check(options: argparse.Namespace) -> int:
    folders = (
        [HERE / options.what.partition("/")[0]]
        if options.what
        else [p.parent for p in sorted(HERE.glob(f"*/{PAPER_FILE}"))]
    )
    problems = [
        problem for folder in folders for problem in check_paper(folder, render_command(folder))
    ]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    print(f"{', '.join(folder.name for folder in folders)}: {len(problems) or 'no'} problems")
    return 1 if problems else 0


def chosen(what: str) -> list[Table]:
    """The table of PAPER/TABLE, or all tables of PAPER."""
    name, _, table = what.partition("/")
    paper = load_paper(HERE / name)
    return [load_table(HERE / name, each) for each in ([table] if table else paper.tables)]


def rows_of(
    table: Table, options: argparse.Namespace, default_scale: str | None = None
) -> list[Row]:
    """The rows that --row and --scale leave."""
    ids = [row.id for row in table.rows]
    for row_id in options.row:
        if row_id not in ids:
            raise UserError(f"{table.name} has no row {row_id!r}. {did_you_mean(row_id, ids)}")
    if options.row:
        return [row for row in table.rows if row.id in options.row]
    scale = SCALES.get(options.scale, default_scale)
    rows = [row for row in table.rows if scale in (None, row.scale)]
    if default_scale and not any(row.experiment for row in rows):
        raise UserError(
            f"{table.name} has nothing to run at this scale. Say --row ID, or --scale paper "
            "--trainer gpu."
        )
    return rows


def tell_where(jobs: list[Job]) -> None:
    for job in jobs:
        plots = ", ".join(str(path) for path in sorted((job.folder / "plots").glob("*.png")))
        print(f"{job.title}: {job.folder}{f', plots: {plots}' if plots else ''}")


def render_command(folder: Path) -> str:
    return f"python experiments/reproduce.py render {folder.name}"


COMMANDS = {"launch": run_launch, "status": run_status, "render": run_render, "check": run_check}

if __name__ == "__main__":
    sys.exit(main())
