"""Where a run's figures go."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from matplotlib.figure import Figure


def save(figure: Figure, name: str, folder: Path, loggers: Iterable[Any]) -> None:
    """``plots/NAME.png`` in a run's folder, and the same in W&B where the run is logged there."""
    path = folder / "plots" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(f"plots/{name}", [str(path)])
