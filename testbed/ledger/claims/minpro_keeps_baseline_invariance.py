"""Does a baseline drop out of MinPRO's expectation?"""

from __future__ import annotations

import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Verdict
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

FORMS = {
    "minimum over earlier tokens": theory.weight("minpro"),
    "minimum over earlier tokens and the token itself": theory.weight("minpro", inclusive=True),
    "product clipped to (0.8, 1.28)": theory.weight("minpro", clip=(0.8, 1.28)),
}


def settle() -> Finding:
    """Exact leak of the baseline 1, relative to the true gradient, of three forms of the weight."""
    case = cases.reference(kl=0.1)
    leak = {form: theory.baseline_leak(*case, weight).relative_size for form, weight in FORMS.items()}
    numbers = {f"relative leak, {form}": value for form, value in leak.items()}
    worst = theory.baseline_leak(*case, FORMS["minimum over earlier tokens"]).worst()
    numbers["largest leak of any |b| <= 1, minimum over earlier tokens"] = worst.upper

    def leaks(form: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            size = theory.baseline_leak(*tree.case, FORMS[form], engine="enumeration").size
            return {"leak of the baseline 1": size} if size > 1e-6 else None

        return shows

    searches = tuple(smallest(f"a leak: {form}", leaks(form), tiny_trees(), most=800) for form in FORMS)
    kept = [form for form, value in leak.items() if value < cases.ZERO]
    verdict: Verdict = "holds" if len(kept) == len(FORMS) else "depends" if kept else "fails"
    because = f"on the form: invariant with the {' and '.join(kept)} and no clip, not with the others"
    return Finding(verdict, because, numbers, searches)


CLAIM = Claim(
    name="minpro_keeps_baseline_invariance",
    statement="The minimum of earlier ratios times the token's own keeps baselines out of the expected gradient.",
    sources=("MinPRO, arXiv 2601.22718",),
    rule="Holds if the leak of a baseline is zero for every form in use, fails if for none, depends otherwise.",
    settle=settle,
    recorded=Recorded(
        "depends",
        {
            "relative leak, minimum over earlier tokens": 0.0,
            "relative leak, minimum over earlier tokens and the token itself": 1.495442,
            "relative leak, product clipped to (0.8, 1.28)": 1.422469,
            "largest leak of any |b| <= 1, minimum over earlier tokens": 0.0,
        },
        found=(
            None,
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4; R = 1 0",
            "T=1, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/4; R = 1 0",
        ),
    ),
)
