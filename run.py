"""python run.py [experiment=NAME] [GROUP=OPTION ...] [KEY=VALUE ...]"""

import os

os.environ.setdefault(
    "HYDRA_FULL_ERROR", "1"
)  # errors reach `guard`, which decides what a person is shown

import hydra
from omegaconf import DictConfig

from lit_seqlm.cli import guard, job
from lit_seqlm.config import register

register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    return job(cfg)


if __name__ == "__main__":
    guard(main)
