"""The process that a run lives in: its device, its memory, what it prints of other libraries."""

import contextlib
import ctypes
import logging
import os
import platform
import re
import resource
import warnings
from pathlib import Path

import torch

NUM_KERNELS = 64  # a training step's, in half precision too; layers share them
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def device_name(accelerator: str) -> str:
    """The machine in words: what the numbers were computed on."""
    if accelerator == "cuda":
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{accelerator}: {model}, {torch.get_num_threads()} threads"


def forget_peak_memory() -> None:
    """Begin anew with the peak, so that a job of a sweep does not report that of the jobs before it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(accelerator: str) -> float:
    """Most memory held since `forget_peak_memory`: of the device if it is one, else resident."""
    if accelerator == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) / 2**10  # type: ignore[union-attr]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def tune_memory(num_kernels: int = NUM_KERNELS) -> None:
    """For batches of many sizes on a CPU: freed blocks are kept, all but `num_kernels` compiled kernels are not."""
    keep_memory()
    forget_kernels(num_kernels)


def keep_memory() -> None:
    """Let glibc keep freed blocks: large CPU tensors otherwise fault their pages in anew at every step."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def forget_kernels(num_kernels: int) -> None:
    """Let oneDNN keep few of the kernels that it compiles, each for one shape of batch.

    Its usual 1,024 make memory grow with every new shape. It asks when it compiles the first.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(num_kernels))


def quieten() -> None:
    """Lightning's banners and hints that do not concern a user of this program."""
    banners = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    for name in (*banners, "faiss.loader"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*isinstance\\(treespec, LeafSpec\\).*", ".*litlogger.*",
                    ".*Checkpoint directory.*", ".*sync_dist=True.*",
                    ".*FSDP2-wrapped module.*view tensor.*", ".*logging interval.*",
                    ".*in eval mode at the start.*"):  # fmt: skip
        warnings.filterwarnings("ignore", message)
