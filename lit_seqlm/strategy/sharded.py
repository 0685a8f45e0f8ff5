"""Weights, gradients and optimizer state spread over devices (Zhao et al. 2023, PyTorch FSDP)."""

from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor


class FullySharded(ModelParallelStrategy):
    """FSDP2: each block of a stack is gathered when it is used, then freed; the rest stays together.

    What a model holds outside of its stacks (embeddings, heads) is gathered once a step, so that parts of it may be
    called by themselves. Checkpoints hold whole tensors, as those of one device do.
    """

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False)

    def shard(self, model: nn.Module) -> None:
        """Spread the parameters of `model` in place; a second call does nothing."""
        if isinstance(model, FSDPModule):
            return
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for stack in [part for part in model.modules() if isinstance(part, nn.ModuleList)]:
            for block in stack:
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread; every process has to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def set_weights(model: nn.Module, weights: dict[str, Any], strict: bool) -> None:
    """`load_state_dict` of whole tensors, into a model that may be spread."""
    if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        options = StateDictOptions(full_state_dict=True, strict=strict)
        set_model_state_dict(model, weights, options=options)
    else:
        model.load_state_dict(weights, strict=strict)
