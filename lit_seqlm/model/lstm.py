"""LSTM language model with plain dropout (Zaremba, Sutskever and Vinyals, 2014)."""

from torch import nn

from lit_seqlm.model.layers.dropout import DroppedEmbedding
from lit_seqlm.model.layers.recurrent import LSTMStack, RecurrentLanguageModel
from lit_seqlm.model.layers.softmax import output_softmax


class LSTMLanguageModel(RecurrentLanguageModel):
    """Embedding, LSTM layers, softmax; dropout on the embedding and after every layer, never in the recurrence.

    Args:
        vocab_size: words.
        hidden_size: of the embedding and of every layer.
        dropout: probability of dropping an activation (1 - the paper's keep probability).
        embedding: ``tied`` shares the input and output matrices, ``untied`` does not.
        init_range: if not null, every weight is drawn from U(-r, r), biases too, as the paper does; null keeps
            torch's initialisation with embeddings in U(-0.1, 0.1).
        cutoffs: cluster bounds of an adaptive softmax; null for a dense one.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        embedding: str,
        init_range: float | None,
        cutoffs: list[int] | None,
    ):
        words, plain = DroppedEmbedding(vocab_size, hidden_size), nn.Dropout(dropout)
        super().__init__(
            words,
            LSTMStack([hidden_size] * (num_layers + 1), between=plain),
            output_softmax(words, embedding, cutoffs),
            plain,
            plain,
        )
        if init_range is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -init_range, init_range)
