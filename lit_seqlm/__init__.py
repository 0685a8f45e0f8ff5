"""Sequence language models for text, proteins and molecules."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_seqlm.checkpoint import load as load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Loaded when asked for: `run.py --help` must not wait for torch.
    if name == "load":
        from lit_seqlm.checkpoint import load

        return load
    raise AttributeError(f"module 'lit_seqlm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
