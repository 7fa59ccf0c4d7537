"""TOPR: no ratio for what went well, a tapered one for what went badly."""

from __future__ import annotations

from typing import Any

from theory.weights.options import check_cap, check_word
from theory.weights.registry import SEQUENCE, Card, Parts, register
from theory.weights.tokens import Tokens


def _check(level: str, cap: float) -> None:
    check_word("level", level, ("token", "sequence"))
    check_cap("cap", cap)


@register(
    Card(
        name="topr",
        summary="Positive advantages uncorrected, as in supervised learning; negative ones by the ratio, at most cap.",
        formula="c_t = 1 where A_t > 0, else min(W, cap); with level='token': min(rho_t, cap) in the place of min(W, "
        "cap)",
        source="TOPR, arXiv 2503.14286; level='token' is the form of ROLL's code",
        defaults="level='sequence', the paper's ratio of the trajectory; cap=1.0, the taper's upper end in both.",
        aliases=("tapered off-policy REINFORCE", "ROLL TOPR (level='token')"),
        caution="Same name, two things: the paper's ratio is of the whole trajectory, ROLL's of the token. Biased by "
        "design. The method decides by the sign of a trajectory's "
        "reward, here each token's own signal does, which is the same with an outcome signal without a baseline. A = 0 "
        "gets the tapered ratio, and nothing depends on it: the product with the advantage is zero.",
    ),
    uses_advantage=True,
    local=lambda level, cap: level == "token",
    check=_check,
    parts=lambda level, cap: SEQUENCE if level == "sequence" else Parts(),
)
def topr(tokens: Tokens, *, level: str = "sequence", cap: float = 1.0) -> Any:
    """c_t = 1 where A_t > 0, else min(W, cap) or min(rho_t, cap)."""
    xp = tokens.xp
    ratio = tokens.ratio if level == "token" else tokens.sequence_ratio
    return xp.where(tokens.advantage > 0, xp.ones_like(ratio), xp.clip(ratio, None, cap))
