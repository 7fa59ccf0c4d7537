"""Does a ratio per token give unbiased gradients?"""

from __future__ import annotations

from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Verdict
from testbed.ledger.tiny import TinyTree, smallest, tiny_trees


def settle() -> Finding:
    """Exact relative bias of the token ratio, with and without drift, and for episodes of one token."""
    numbers: dict[str, float] = {}
    for signal in cases.SIGNALS:
        for kl in (0.0, 0.01, 0.1):
            bias = cases.moments(cases.reference(kl=kl), "token", signal).relative_bias
            numbers[f"relative bias, {signal}, KL {kl:g} per token"] = bias
        one = cases.moments(cases.reference(kl=0.1, depth=1), "token", signal).relative_bias
        numbers[f"relative bias, {signal}, KL 0.1, one token"] = one

    def biased(tree: TinyTree) -> dict[str, float] | None:
        bias = {signal: tree.moments("token", signal).relative_bias for signal in cases.SIGNALS}
        return bias if min(bias.values()) > 1e-6 else None

    def wrong_sign(tree: TinyTree) -> dict[str, float] | None:
        m = tree.moments("token", "outcome")
        truth, mean = m.gradient[1], m.mean[1]
        return {"truth": truth, "expected estimate": mean} if truth * mean < -1e-6 else None

    searches = (
        smallest("a bias with each of the three signals", biased, tiny_trees()),
        smallest("with outcome, the wrong sign in the first logit", wrong_sign, tiny_trees()),
    )
    drifted = [value for name, value in numbers.items() if "KL 0 " not in name and "one token" not in name]
    exact = [value for name, value in numbers.items() if "KL 0 " in name or "one token" in name]
    verdict: Verdict = "holds" if max(drifted) < cases.ZERO else "fails" if min(drifted) > cases.ZERO else "depends"
    where = "at pi = mu and for episodes of one token" if max(exact) < cases.ZERO else "nowhere"
    return Finding(verdict, f"unbiased {where}; biased with every signal elsewhere", numbers, searches)


CLAIM = Claim(
    name="token_ratio_gives_unbiased_gradients",
    statement="Weighting each token by its own ratio corrects the mismatch: the gradient estimates are unbiased.",
    sources=("NeMo-RL documentation, guide to asynchronous GRPO",),
    rule="Holds if the relative bias is zero at every drift and signal tried, fails if it is zero only without drift.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "relative bias, target_advantage, KL 0 per token": 0.0,
            "relative bias, target_advantage, KL 0.01 per token": 0.09632461,
            "relative bias, target_advantage, KL 0.1 per token": 0.3161219,
            "relative bias, target_advantage, KL 0.1, one token": 0.0,
            "relative bias, behaviour_advantage, KL 0 per token": 0.0,
            "relative bias, behaviour_advantage, KL 0.01 per token": 0.2050596,
            "relative bias, behaviour_advantage, KL 0.1 per token": 0.84888,
            "relative bias, behaviour_advantage, KL 0.1, one token": 0.0,
            "relative bias, outcome, KL 0 per token": 0.0,
            "relative bias, outcome, KL 0.01 per token": 0.2050596,
            "relative bias, outcome, KL 0.1 per token": 0.84888,
            "relative bias, outcome, KL 0.1, one token": 0.0,
        },
        found=(
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4 1/2 1/2; R = 1 0 0 0",
            "T=2, two tokens; pi(1|prefix) = 1/2 1/4 1/2; mu(1|prefix) = 1/2 3/4 1/2; R = 1 0 1 0",
        ),
    ),
)
