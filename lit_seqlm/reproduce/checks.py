"""What is wrong with a paper's committed tables: numbers, records, rendered README."""

from pathlib import Path

from lit_seqlm.reproduce import aggregate
from lit_seqlm.reproduce.aggregate import Records
from lit_seqlm.reproduce.cells import number
from lit_seqlm.reproduce.plan import plan
from lit_seqlm.reproduce.records import committed_path, faults, load_records, stray_files
from lit_seqlm.reproduce.render import markdown
from lit_seqlm.reproduce.table import Table, load_paper, load_table


def check_table(table: Table, records: Records) -> list[str]:
    """Numbers out of tolerance, records that cannot stand behind one, files of no row."""
    problems = []
    for job in plan(table, table.rows) if table.results == "committed" else ():
        record = records[job.row].get(job.seed)
        for fault in faults(record, table.row(job.row), job) if record else ():
            problems.append(f"{table.name}/{committed_path(table, *job.key).name}: {fault}")
    for path in stray_files(table) if table.results == "committed" else ():
        problems.append(f"{table.name}/{path.name}: no row and seed of the table asks for it")
    for row in table.rows:
        demanded = aggregate.demanded(table, row)
        for key, value in aggregate.outside_tolerance(table, row, records[row.id]).items():
            metric = table.metrics[key]
            problems.append(
                f"{table.name}: row {row.id}: measured {metric.label} {number(value.mean, metric)} "
                f"is more than {row.tolerance:g} % from {number(demanded[key], metric)}"
            )
    return problems


def check_paper(folder: Path, command: str) -> list[str]:
    """All tables of a paper, and that its README is what they render to now."""
    paper = load_paper(folder)
    tables = [load_table(folder, name) for name in paper.tables]
    loaded = [(table, load_records(table)) for table in tables]
    problems = [problem for table, records in loaded for problem in check_table(table, records)]
    if any(table.results == "committed" for table in tables):
        readme = folder / "README.md"
        current = readme.read_text() if readme.exists() else ""
        if current != markdown(paper, loaded, command):
            problems.append(
                f"{folder.name}/README.md is not what its tables say now. Run: {command}"
            )
    return [f"{folder.name}: {problem}" for problem in problems]
