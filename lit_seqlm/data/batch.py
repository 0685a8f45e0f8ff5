"""What every dataloader yields and every objective reads."""

# B = sequences, T = tokens

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Batch:
    """Token ids and what to predict at each of them.

    Attributes:
        tokens_BT: inputs.
        targets_BT: what the objective scores at each position.
        mask_BT: the positions that count; null when all do.
        continues: these rows go on where the previous batch's rows ended, so its state is theirs.
        lr_scale: this step's learning rate over the usual one (AWD-LSTM: segment length over the
            base length).
    """

    tokens_BT: Tensor
    targets_BT: Tensor
    mask_BT: Tensor | None = None
    continues: bool = False
    lr_scale: float = 1.0
