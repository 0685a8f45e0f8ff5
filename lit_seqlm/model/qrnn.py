"""Quasi-recurrent language model (Bradbury et al., ICLR 2017), as Merity et al. 2018 train it."""

from lit_seqlm.model.layers.dropout import DroppedEmbedding, LockedDropout
from lit_seqlm.model.layers.qrnn import QRNNStack
from lit_seqlm.model.layers.recurrent import RecurrentLanguageModel, layer_sizes
from lit_seqlm.model.layers.softmax import output_softmax


class QRNNLanguageModel(RecurrentLanguageModel):
    """AWD-LSTM's frame around quasi-recurrent layers: the first sees two words at once, others one.

    Args:
        vocab_size: words.
        hidden_size: of all layers but the last, which has the embedding's size.
        embedding: ``tied`` shares the input and output matrices, ``untied`` does not.
        cutoffs: cluster bounds of an adaptive softmax; null for a dense one.
        weight_dropout: rate on every layer's linear map; a QRNN has no hidden-to-hidden matrix.
        input_dropout, hidden_dropout, output_dropout, embedding_dropout, input_noise: as in
            AWD-LSTM.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        embedding: str,
        cutoffs: list[int] | None,
        input_dropout: float,
        hidden_dropout: float,
        output_dropout: float,
        embedding_dropout: float,
        weight_dropout: float,
        input_noise: float,
    ):
        words = DroppedEmbedding(vocab_size, embedding_size, embedding_dropout, input_noise)
        sizes = layer_sizes(embedding_size, hidden_size, embedding_size, num_layers)
        super().__init__(
            words,
            QRNNStack(sizes, LockedDropout(hidden_dropout), weight_dropout),
            output_softmax(words, embedding, cutoffs),
            LockedDropout(input_dropout),
            LockedDropout(output_dropout),
        )
