"""No memory: the model's own probabilities."""

from lit_seqlm.cache.memory import Memory


class NoCache(Memory):
    """Has no distribution to mix, so that every weight stays with the static model."""

    def __init__(self) -> None:
        super().__init__(0.0, {})

    @property
    def memories(self) -> dict[str, Memory]:
        return {}
