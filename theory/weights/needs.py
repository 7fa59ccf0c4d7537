"""What a weight may need to know of a token beside its ratio, its mask and its advantage."""

from __future__ import annotations

import math

NEEDS = {
    "log_probability": "log pi(a_t|s_t), (N, T)",
    "total_variation": "TV(mu(.|s_t), pi(.|s_t)) = half the sum over a of |mu - pi|, (N, T)",
    "kl": "KL(mu(.|s_t) || pi(.|s_t)) in nats, (N, T)",
    "old_log_ratio": "log pi_old(a_t|s_t) - log mu(a_t|s_t), (N, T): the policy of the start of the update over the "
    "one that generated the data",
    "state_ratio": "d^pi_t(s_t) / d^mu_t(s_t), (N, T): how much likelier the state is under the policy being trained",
    "lag": "number of updates between the policy that drew the token and the one being trained, (N, T)",
}
"""name -> what it is. Exact engines compute the first three and `state_ratio` from the policies; `old_log_ratio` and
`lag` need `old=` and `lag=` beside the behaviour policy. `theory.Weight.coefficients` takes each by its name."""

RANGES = {
    "log_probability": (-math.inf, 0.0),
    "total_variation": (0.0, 1.0),
    "kl": (0.0, math.inf),
    "old_log_ratio": (-math.inf, math.inf),
    "state_ratio": (0.0, math.inf),
    "lag": (0.0, math.inf),
}
"""name -> the least and the largest that it can be, up to rounding; of them only `kl` can be infinite."""
