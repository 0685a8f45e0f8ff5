"""AWD-LSTM with a mixture of softmaxes (Yang, Dai, Salakhutdinov and Cohen, ICLR 2018)."""

from lit_seqlm.model.layers.dropout import DroppedEmbedding, LockedDropout
from lit_seqlm.model.layers.recurrent import LSTMStack, RecurrentLanguageModel, layer_sizes
from lit_seqlm.model.layers.softmax import MixtureOfSoftmaxes


class MixtureOfSoftmaxesLSTM(RecurrentLanguageModel):
    """AWD-LSTM whose softmax is a mixture: log p over contexts may exceed the embedding's rank.

    The output matrix is always the input embedding; each expert has a latent vector of its size, so
    the last layer may be larger. Mixture weights and latents both read the last layer's dropped
    output.

    Args:
        vocab_size: words.
        hidden_size: of all layers but the last, which has `last_size`.
        num_experts: K, softmaxes in the mixture.
        latent_dropout: locked, on the experts' latent vectors.
        input_dropout, hidden_dropout, output_dropout, embedding_dropout, weight_dropout,
        input_noise:
            as in AWD-LSTM.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        last_size: int,
        num_layers: int,
        num_experts: int,
        latent_dropout: float,
        input_dropout: float,
        hidden_dropout: float,
        output_dropout: float,
        embedding_dropout: float,
        weight_dropout: float,
        input_noise: float,
    ):
        words = DroppedEmbedding(vocab_size, embedding_size, embedding_dropout, input_noise)
        sizes = layer_sizes(embedding_size, hidden_size, last_size, num_layers)
        super().__init__(
            words,
            LSTMStack(sizes, LockedDropout(hidden_dropout), weight_dropout),
            MixtureOfSoftmaxes(vocab_size, last_size, num_experts, latent_dropout, tied_to=words),
            LockedDropout(input_dropout),
            LockedDropout(output_dropout),
        )
