"""Which state of a model its memories compare."""

# B = sequences, T = tokens, D = size of the state

from typing import Any

from torch import Tensor, nn

from lit_seqlm.errors import UserError, did_you_mean


class Keys:
    """``output`` is the last layer's output before dropout; other states are caught where the model says they are.

    A model offers more by a method ``key_modules() -> {name: module}``, the key being that module's output. For
    transformers Khandelwal et al. 2020 (section 5) found the input of the last feed-forward layer to be best.
    """

    def __init__(self, model: nn.Module, which: str):
        offered: dict[str, nn.Module] = getattr(model, "key_modules", dict)()
        if which != "output" and which not in offered:
            names = ["output", *offered]
            raise UserError(f"task.key={which}: this model has none. {did_you_mean(which, names)}")
        self.which = which
        self._caught_BTD: Tensor | None = None
        if which != "output":
            offered[which].register_forward_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: Any, output_BTD: Tensor) -> None:
        self._caught_BTD = output_BTD

    def of(self, output: Any) -> Tensor:
        """The keys (B, T, D) of the forward pass that gave `output`."""
        return output.raw_BTD if self._caught_BTD is None else self._caught_BTD
