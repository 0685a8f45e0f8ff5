"""AWD-LSTM: an LSTM whose every part is dropped (Merity, Keskar and Socher, ICLR 2018)."""

from lit_seqlm.model.layers.dropout import DroppedEmbedding, LockedDropout
from lit_seqlm.model.layers.recurrent import LSTMStack, RecurrentLanguageModel, layer_sizes
from lit_seqlm.model.layers.softmax import output_softmax


class AWDLSTM(RecurrentLanguageModel):
    """LSTM layers with masks on their recurrent weights, and masks locked over time between them.

    The last layer has the embedding's size, so that input and output matrices can be one (section
    4.5). Training it as the paper does also takes ``optimizer=ntasgd``, ``penalty=activation`` and
    segments of random length.

    Args:
        vocab_size: words.
        hidden_size: of all layers but the last.
        embedding: ``tied`` shares the input and output matrices, ``untied`` does not.
        cutoffs: cluster bounds of an adaptive softmax; null for a dense one.
        input_dropout, hidden_dropout, output_dropout: locked: on embeddings, between layers, after
            the last layer.
        embedding_dropout: rate of whole words dropped at the input (section 4.3).
        weight_dropout: rate on the hidden-to-hidden matrices (section 2).
        input_noise: standard deviation of Gaussian noise on the embeddings (code of Wang et al.
            2019).
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
            LSTMStack(sizes, LockedDropout(hidden_dropout), weight_dropout),
            output_softmax(words, embedding, cutoffs),
            LockedDropout(input_dropout),
            LockedDropout(output_dropout),
        )
