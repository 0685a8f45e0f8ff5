"""A small table, and the records of its runs."""

from pathlib import Path

import yaml

BASE = {1: 110.2, 2: 111.9, 3: 109.4}
BRANCH = {1: 108.0, 2: 109.3, 3: 108.1}


def record(value=None, status="done", **more):
    metrics = {} if value is None else {"test/ppl": value}
    return {"status": status, "metrics": metrics, "commit": "0123456789ab", **more}


def records(values):
    return {seed: record(value) for seed, value in values.items()}


def plain_table():
    return {
        "title": "A table",
        "headline": "test/ppl",
        "metrics": {"test/ppl": {"label": "test ppl", "direction": "lower"}},
        "rows": [
            {"id": "base", "label": "base", "experiment": "small", "seeds": [7]},
            {
                "id": "branch",
                "label": "branch",
                "experiment": "small",
                "init_from": "base",
                "overrides": ["model.dropout=0.0"],
                "seeds": [1, 2],
                "paper": {"value": {"test/ppl": 90.0}, "where": "table 1", "verified": False},
                "tolerance": 2,
                "effect": {"against": "base", "paper_percent": -2.7},
            },
        ],
    }


def write(folder_: Path, plain) -> Path:
    paper = folder_ / "paper2020"
    paper.mkdir(exist_ok=True)
    (paper / "small.yaml").write_text(yaml.safe_dump(plain, sort_keys=False))
    return paper
