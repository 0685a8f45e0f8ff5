"""Peak memory of `task=embed` over two windows of molecules and over many: it must not grow with their number."""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lit_seqlm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
MOST_GROWTH = 64  # megabytes
POLL_SECONDS = 0.1


def embed_memory(run: str, strings: list[str], num_few: int) -> dict[str, float]:
    """Two runs of the program, each in a process whose resident memory is watched.

    Args:
        num_few: molecules of the first run. Two windows of `task.window` rows, as in the first one the allocator
            and the compiled kernels fill up.

    Raises:
        UserError: without a run, and where the program fails.
    """
    if not run:
        raise UserError("--only embed: say whose weights, --run FOLDER of a trained run.")
    few, many = strings[:num_few], strings
    with tempfile.TemporaryDirectory() as folder:
        peaks = [_peak(run, Path(folder, str(len(of))), of) for of in (few, many)]
    return {
        "few": len(few),
        "many": len(many),
        "megabytes_few": peaks[0],
        "megabytes_many": peaks[1],
        "growth_megabytes": peaks[1] - peaks[0],
    }


def command(run: str, source: Path, folder: Path) -> list[str]:
    """As a user would type it."""
    words = ["task=embed", f"init_from={run}", f"paths.output_dir={folder}", f"task.input={source}"]
    words.append(f"task.output={folder}.parquet")
    return [sys.executable, str(ROOT / "run.py"), *words]


def _peak(run: str, folder: Path, strings: list[str]) -> float:
    """Most megabytes that the program held at once."""
    folder.mkdir()
    source = folder / "molecules.smi"
    source.write_text("\n".join(strings) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command(str(Path(run).resolve()), source, folder / "run"),
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        most = 0
        while process.poll() is None:
            most = max(most, _resident(process.pid))
            time.sleep(POLL_SECONDS)
    if process.returncode:
        last = (folder / "log").read_text().strip().splitlines()[-1:]
        raise UserError(f"task=embed failed over {len(strings):,} molecules: {' '.join(last)}")
    return most / 2**20


def _resident(pid: int) -> int:
    """Bytes; none once it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0
    return pages * resource.getpagesize()
