"""What stands beside a result: whether its split is fair, and what simple methods reach on it."""

import logging
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)


class Baselines:
    """Asks the data for an audit and for baselines' predictions, and scores them as the model is scored.

    Args:
        names: of the baselines.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)

    def audit(self, datamodule: Any) -> dict[str, Any]:
        """Show it, and return it for the record."""
        return {}

    def numbers(self, datamodule: Any, metric: Any) -> dict[str, float]:
        """``baseline/NAME/...`` of the test split."""
        return {}
