"""What a training asks of a network besides computing: who writes files, who has which images, what all have agreed on.

A network by itself is the only rank, and the answers are plain; minicnn/parallel/parallel_net.py has those of several.
"""

from __future__ import annotations

import numpy as np


class OnlyRank:
    """The answers of a network by itself.   ops: its backend."""

    lead = True                 # writes files and speaks
    is_split = False            # a forward pass needs the other ranks
    has_logits = True           # `logits` can be asked for after `loss`

    def own_rows(self, batch: int) -> slice:
        """Which images of a batch this rank is given by the loader: all of them."""
        return slice(0, batch)

    def must_agree(self, values: dict) -> None:
        """Raises where ranks do not hold the same values."""

    def tell(self, what, arrays: dict[str, np.ndarray]) -> tuple:
        """What the lead says, on every rank."""
        return what, arrays

    def lead_has_written(self) -> None:
        """Returns when the lead has come here, too, from writing files."""

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """Whether any rank wishes it, of each of these."""
        return wishes

    def total(self, numbers: dict[str, float]) -> dict[str, float]:
        """The sum over the ranks of each number."""
        return numbers

    def own_part(self, arrays: dict[str, np.ndarray]) -> dict:
        """What this rank holds of arrays that belong to parameters, by their names: all of it."""
        return {name: self.ops.from_host(array) for name, array in arrays.items()}

    def whole(self, arrays: dict) -> dict[str, np.ndarray]:
        """The inverse of `own_part`, on the lead."""
        return {name: self.ops.to_host(array) for name, array in arrays.items()}
