"""Every weight with its default options, and with options that make a difference."""

import math

import theory

VARIANTS = [
    *(theory.weight(name) for name in theory.weight_cards()),
    theory.weight("minpro", clip=(0.8, 1.28)),
    theory.weight("minpro", inclusive=True),
    theory.weight("minpro", inclusive=True, clip=(0.5, 2.0)),
    theory.weight("truncated", cap=1.1),
    theory.weight("truncated", level="sequence"),
    theory.weight("truncated", level="sequence", cap=0.7),
    theory.weight("truncated", cap=math.inf),
    theory.weight("masked", interval=(0.0, 1.2)),
    theory.weight("masked", level="sequence", interval=(0.5, 2.0)),
    theory.weight("masked", interval=(0.0, math.inf)),
    theory.weight("ppo_clip", clip=(0.8, 1.28), dual=3.0),
    theory.weight("ppo_clip", clip=(0.9, 1.1), dual=1.3),
    theory.weight("gspo", clip=(0.8, 1.2)),
    theory.weight("cispo", clip=(0.8, 1.28)),
    theory.weight("v_trace", cap=2.0, trace_cap=1.5),
    theory.weight("v_trace", cap=0.9, trace_cap=0.8),
    theory.weight("v_trace", cap=math.inf),
    theory.weight("v_trace", cap=math.inf, trace_cap=math.inf),
    theory.weight("m2po", budget=0.5),
    theory.weight("m2po", budget=0.3, clip=(0.95, 1.05)),
]

# Those that leave a ratio of 1 as it is.
ONE_AT_ONE = [w for w in VARIANTS if min(w.options.get("cap", 1.0), w.options.get("trace_cap", 1.0)) >= 1.0]

IDS = [weight.label for weight in VARIANTS]
