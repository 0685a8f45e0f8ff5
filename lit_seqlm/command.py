"""How a program beside run.py ends."""

import sys
from collections.abc import Callable

from lit_seqlm.errors import UserError


def exit_status(work: Callable[[], int | None], stopped: str = "stopped.") -> int:
    """What `work` returns, or 0; 2 and the message for what the user can mend; 130 where they stopped it.

    Args:
        stopped: said then.
    """
    try:
        return work() or 0
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{stopped}\n")
        return 130
