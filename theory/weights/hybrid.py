"""Weights put together from parts: the steps between the exact correction and a weight of the registry."""

from __future__ import annotations

from functools import cache
from typing import Any

from theory.weights.products import product, product_factors
from theory.weights.registry import Card, Family, Parts, Weight


class _Hybrid(Weight):
    """A weight that its parts alone define, and that has no name."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the parts."""
        return hybrid, (self.parts,)

    def __repr__(self) -> str:
        """As it is made."""
        return f"hybrid({self.parts!r})"


@cache
def hybrid(parts: Parts) -> Weight:
    """The weight c_t = prefix part x own part x suffix part. It is not in the registry."""
    card = Card("/".join(parts), "A product of parts.", "c_t = prefix part x own part x suffix part", "", "")
    never = lambda **_: False  # noqa: E731
    family = Family(
        card=card,
        function=lambda tokens: product(tokens, parts),
        options={},
        check=None,
        baseline_invariant=never,
        uses_advantage=never,
        factors=lambda log_ratio, length: product_factors(log_ratio, length, parts),
        by_length="root" in parts,
        couples_batch=False,
        parts=lambda **_: parts,
    )
    return _Hybrid(family, {})
