"""Methods that are known to exist and are not here, most of them because no public text with a formula was found."""

from __future__ import annotations

LEFT_OUT: dict[str, str] = {
    "SSPO": "arXiv 2602.19327: a geometric mean of soft gates of the token ratios, whose constants were not seen.",
    "GIPO": "arXiv 2603.03955: a Gaussian trust weight of the log-ratio, known from a secondary text only.",
    "KPO": "a Kalman filter over the log-ratios of a sequence, known from a secondary text only, which does not settle "
    "its arXiv number.",
    "Jackpot": "arXiv 2602.06107: rejection sampling with a budget, whose reweighting was seen in words only.",
    "FIPO": "a token weight from future divergence, known only from being cited by another paper.",
    "sis": "an option of a third party's verl script (an envelope of 2.0 and a deterministic acceptance) whose paper "
    "could not be identified.",
    "SC-GRPO's moving average": "a state weight from an average of earlier log-ratios that decays by 0.9, in a third "
    "party's repository; what it starts from and how the decay enters were not seen.",
    "SC-GRPO's baseline correction": "an option of the same repository, known by its name only.",
    "SC-GRPO's self-normalised state weight": "an option of the same repository, known by its name only.",
    "PSPO": "arXiv 2509.21282: its smoothed ratio as a weight is `mixed_ratio`; differentiated as an objective it is "
    "`token` times a constant.",
    "top-K total variation": "DPPO's and CPPO's sum over the likeliest tokens of mu, the sampled one and the rest "
    "needs the whole distribution of mu; the exact total variation, of which it is a lower bound, stands here.",
    "NFPO's mask": "arXiv 2605.20865: the ratios of the next N - 1 tokens are known, the mask, what is differentiated "
    "and the default N are not.",
    "TIC-GRPO's clip": "arXiv 2508.02833: the ratio of the whole trajectory is `sequence`; whether its clip has one "
    "side or two was not seen.",
    "TEPO": "arXiv 2604.12736: its formula was not read; its ablation, Sentence Prefix IS, is `pnpo` with gate=False.",
    "GEPO": "arXiv 2508.17850: denominators that are group expectations; its formula was not read.",
    "LUSPO": "arXiv 2602.05261: the paper's formula was not read; what TRL computes under its name is `gspo` with "
    "reduction 'sum', the preset trl:grpo/luspo.",
    "FSPO": "arXiv 2509.09177: a clip whose width grows as the root of the length; its formula was not read.",
    "VCPO": "arXiv 2602.17616: a step size that shrinks with the effective sample size; its weight is `truncated` with "
    "level='sequence' and cap=8.0, its baseline `theory.optimal_baseline` with squared weights.",
    "SAT": "arXiv 2607.18722: known to exist, no formula was found.",
    "ESTR": "arXiv 2607.22186: known to exist, no formula was found.",
    "BPO-BRRL": "arXiv 2604.18578: known to exist, no formula was found.",
    "OAPL": "arXiv 2602.19362: known to exist, no formula was found.",
    "VACO": "arXiv 2603.01365: known to exist, no formula was found.",
    "SAO": "arXiv 2607.07508: known to exist, no formula was found.",
    "GAC": "arXiv 2603.01501: known to exist, no formula was found.",
    "mu-GRPO": "arXiv 2605.17570: known to exist, no formula was found.",
}
"""name -> why it is left out, one sentence."""
