"""Several memories of one stream."""

from collections.abc import Mapping

from lit_seqlm.cache.dynamic import DynamicEvaluation
from lit_seqlm.cache.memory import Memory
from lit_seqlm.errors import UserError


class Mixture(Memory):
    """The memories of `components`, by name: each reads the stream once, each is also reported alone.

    Dynamic evaluation among them changes the states that the others see, and the static model beside them.

    Weights are no part of it: they are chosen on the recorded probabilities (`lit_seqlm.cache.mixing`).
    """

    def __init__(self, components: Mapping[str, Memory | DynamicEvaluation]):
        super().__init__(0.0, {})
        if not components:
            raise UserError("cache.components is empty. Say cache=none, or name a memory.")
        if any(isinstance(memory, Mixture) for memory in components.values()):
            raise UserError("cache.components holds a mixture. Put its memories there instead.")
        self.components = dict(components)
        if sum(isinstance(part, DynamicEvaluation) for part in components.values()) > 1:
            raise UserError("cache.components adapts the weights twice. Leave one of them out.")

    @property
    def memories(self) -> dict[str, Memory]:
        return {name: part for name, part in self.components.items() if isinstance(part, Memory)}

    @property
    def adapter(self) -> DynamicEvaluation | None:
        parts = self.components.values()
        return next((part for part in parts if isinstance(part, DynamicEvaluation)), None)
