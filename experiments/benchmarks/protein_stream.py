"""An epoch of packed batches from a folder of shards: the program whose memory the protein benchmark watches.

python experiments/benchmarks/protein_stream.py FOLDER
"""

import sys

import torch

from lit_seqlm.command import exit_status
from lit_seqlm.data.masking import CountedMasking
from lit_seqlm.data.sharded_packed import ShardedPackedData
from lit_seqlm.data.shards import ShardSource
from lit_seqlm.errors import UserError
from lit_seqlm.tokenizer.amino_acid import AminoAcidTokenizer

ROW, ROWS = 2176, 16  # tokens of a packed row, rows of a batch
WINDOW = 2**16  # sequences packed together


def stream(folder: str) -> None:
    """Every sequence once, with masks, as a training gets them.

    Raises:
        UserError: where another number of them comes than the shards say.
    """
    torch.set_num_threads(1)
    tokenizer = AminoAcidTokenizer("cls", "keep", False)
    masking = CountedMasking(0.15, 0.8, 0.1, "content", "row")
    source, budget = ShardSource(folder), ROW * ROWS
    data = ShardedPackedData(source, tokenizer, masking, ROW, budget, budget, WINDOW, 1)
    data.setup()
    num_read = 0
    for batch in data.train_dataloader():
        assert batch.mask_BT is not None
        assert batch.segments_BT is not None
        # A batch without masks holds sequences once more: it only keeps step with other processes.
        num_read += int(batch.segments_BT[0, -1]) + 1 if batch.mask_BT.any() else 0
    wanted = source.num_sequences("train")
    if num_read != wanted:
        raise UserError(f"{folder}: {num_read:,} sequences came, not {wanted:,}.")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: stream(sys.argv[1])))
