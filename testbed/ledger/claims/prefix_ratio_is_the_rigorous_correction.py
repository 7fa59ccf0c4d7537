"""Is the product of the ratios up to the token the exact correction?"""

from __future__ import annotations

import testbed
import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees


def settle() -> Finding:
    """Exact relative bias of the prefix ratio with each signal, own and cumulative score."""
    case = cases.reference(kl=0.1)
    numbers = {"KL(mu || pi) per sequence": theory.divergences(*case).sequence.kl_behaviour_target}
    bias = {signal: cases.moments(case, "prefix", signal).relative_bias for signal in cases.SIGNALS}
    bias["behaviour_advantage, cumulative score"] = cases.moments(
        case, "prefix", "behaviour_advantage", score="cumulative"
    ).relative_bias
    numbers |= {f"relative bias, {signal}": value for signal, value in bias.items()}

    # Of two tokens the first has the same law under both policies: its ratio is 1, and its gradient changes sign.
    coin = testbed.environment("two_token_counterexample", epsilon=0.1)
    assert coin.behaviour is not None
    m = theory.moments(coin.process, coin.target, coin.behaviour, theory.Estimator("prefix", "outcome"))
    numbers |= {"two tokens, first logit: truth": m.gradient[1], "two tokens, first logit: with outcome": m.mean[1]}

    def wrong_sign(tree: TinyTree) -> dict[str, float] | None:
        m = tree.moments("prefix", "outcome")
        truth, mean = m.gradient[1], m.mean[1]
        return {"truth": truth, "expected estimate": mean} if truth * mean < -1e-6 else None

    def biased(signal: str, score: str = "own") -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            m = tree.moments("prefix", signal, score=score)
            return {"relative bias": m.relative_bias} if m.relative_bias > 1e-6 else None

        return shows

    searches = (
        smallest("a bias with target_advantage", biased("target_advantage"), tiny_trees(), most=800),
        smallest("a bias with outcome", biased("outcome"), tiny_trees()),
        smallest("with outcome, the wrong sign in the first logit", wrong_sign, tiny_trees()),
    )
    exact = [signal for signal, value in bias.items() if value < cases.ZERO]
    verdict: Verdict = "holds" if len(exact) == len(bias) else "depends" if exact else "fails"
    because = f"on the signal: unbiased with {' and '.join(exact)}, biased with the others"
    return Finding(verdict, because, numbers, searches)


CLAIM = Claim(
    name="prefix_ratio_is_the_rigorous_correction",
    statement="The prefix ratio C_t, the product of the token ratios up to t, is the rigorous off-policy correction.",
    sources=("MinPRO, arXiv 2601.22718", "CTPO, arXiv 2605.07331"),
    rule="Holds if the relative bias is zero with every signal, fails if with none, and depends on it otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "KL(mu || pi) per sequence": 0.4,
            "relative bias, target_advantage": 0.0,
            "relative bias, behaviour_advantage": 0.7311614,
            "relative bias, outcome": 0.7311614,
            "relative bias, behaviour_advantage, cumulative score": 0.0,
            "two tokens, first logit: truth": -0.05,
            "two tokens, first logit: with outcome": 0.05,
        },
        found=(
            None,
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/2 1/4 1/2; R = 1 0 0 0",
            "T=2, two tokens; pi(1|prefix) = 1/2 1/4 1/2; mu(1|prefix) = 1/2 3/4 1/2; R = 1 0 1 0",
        ),
    ),
)
