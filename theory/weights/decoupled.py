"""Three policies: one weight from the start of the update to now, times one from the behaviour policy to that start."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np

from theory.weights import ppo_clip, unclipped  # noqa: F401 - the defaults must be registered
from theory.weights.options import check_fraction
from theory.weights.registry import Array, Card, Factors, Parts, Weight, register, weight
from theory.weights.tokens import Tokens


def _check(update: str | Weight, behaviour: str | Weight, anchor: float | str) -> None:
    for option, name in (("update", update), ("behaviour", behaviour)):
        chosen = weight(name)
        if chosen.needs or chosen.family.couples_batch:
            why = f"needs {chosen.needs[0]}" if chosen.needs else "couples the batch"
            raise ValueError(
                f"{option} is {chosen.label!r}, which {why}; expected a weight of one sequence's ratios alone"
            )
    if isinstance(anchor, Real) and not isinstance(anchor, bool):
        check_fraction("anchor", anchor)
    elif anchor not in ("old", "lag"):
        raise ValueError(f"anchor is {anchor!r}; expected 'old', 'lag' or a number from 0 to 1")


def _needs(update: str | Weight, behaviour: str | Weight, anchor: float | str) -> tuple[str, ...]:
    return {"old": ("old_log_ratio",), "lag": ("lag",)}.get(str(anchor), ())


def _linear(parts: Parts) -> bool:
    return not parts.prefix.endswith("minimum")


def _parts(update: str | Weight, behaviour: str | Weight, anchor: float | str) -> Parts:
    one, other = weight(update).parts, weight(behaviour).parts
    # Products of ratios of the same tokens multiply to the product of pi / mu; nothing else is a product of parts.
    return one if one == other and _linear(one) else Parts()


def _baseline_invariant(update: str | Weight, behaviour: str | Weight, anchor: float | str) -> bool:
    """Both are a token's ratio times a function of earlier tokens: then so is their product. Or they are the same
    weight, whose later ratios multiply to those of pi / mu, which integrate to one.
    """
    one, other = weight(update), weight(behaviour)
    return one.baseline_invariant and other.baseline_invariant and (one == other or _looks_back(one, other))


def _looks_back(*weights: Weight) -> bool:
    found = [w.factors(np.zeros((1, 1)), 1) for w in weights]
    return all(f is not None and f.after is None for f in found)


def _factors(
    log_ratio: Array, length: int, given: Any = None, *, update: str | Weight, behaviour: str | Weight,
    anchor: float | str,
) -> Factors | None:  # fmt: skip
    first, second = weight(update), weight(behaviour)
    if first.family.by_length or second.family.by_length:
        return None

    def at(t: int) -> tuple[Factors, Factors] | None:
        beside = {name: table[min(t, len(table) - 1)] for name, table in (given or {}).items()}
        ours, theirs = _split(np, log_ratio, anchor, beside)
        one, other = first.factors(ours, length), second.factors(theirs, length)
        return None if one is None or other is None else (one, other)

    found = at(0)
    if found is None:
        return None
    one, other = found
    if one.key is not None and other.key is not None:
        return None

    def own(t: int, stat: Array, advantage: Array) -> Array:
        pair = at(t) if anchor == "lag" else found
        assert pair is not None
        return np.asarray(_times(np, pair[0].own_at(t, stat, advantage), pair[1].own_at(t, stat, advantage)))

    looks_around = any(x is not None for f in found for x in (f.before, f.after, f.key))
    if anchor == "lag" and looks_around:  # only the token's own factor may change with the step
        return None
    return Factors(
        _product(one.before, other.before),
        lambda stat, advantage: own(0, stat, advantage),
        _product(one.after, other.after),
        one.key if other.key is None else other.key,
        own if anchor == "lag" else None,
    )


def _coefficients(name: str | Weight, tokens: Tokens, log_ratio: Any) -> Any:
    chosen = weight(name)
    return chosen.family.function(tokens._replace(log_ratio=log_ratio, given={}), **chosen.options)


def _split(xp: Any, log_ratio: Any, anchor: float | str, given: Any) -> tuple[Any, Any]:
    """log pi - log pi_old and log pi_old - log mu.

    Raises:
        ValueError: pi_old never takes an action that pi takes.
    """
    zero = xp.zeros_like(log_ratio)
    if anchor == "old":
        theirs = given["old_log_ratio"]
        never = theirs == -float("inf")
        if bool(xp.any(never & (log_ratio != -float("inf")))):
            raise ValueError("old_log_ratio is -inf where log_ratio is not; expected an old policy with pi's support")
        return xp.where(never, log_ratio, log_ratio - xp.where(never, zero, theirs)), theirs
    alpha = zero + anchor if anchor != "lag" else 1.0 - 1.0 / xp.maximum(given["lag"], zero + 1.0)
    return _share(xp, 1.0 - alpha, log_ratio), _share(xp, alpha, log_ratio)


def _share(xp: Any, share: Any, log_ratio: Any) -> Any:
    """share x log_ratio; none of a log-ratio of -inf is 0."""
    none = share == 0.0
    return xp.where(none, xp.zeros_like(share), xp.where(none, xp.ones_like(share), share) * log_ratio)


def _times(xp: Any, one: Any, other: Any) -> Any:
    """The product, zero where either is zero: what is masked stays masked where the other overflows."""
    none = (one == 0.0) | (other == 0.0)
    return xp.where(none, xp.zeros_like(one), one) * xp.where(none, xp.zeros_like(other), other)


def _product(one: Array | None, other: Array | None) -> Array | None:
    return other if one is None else one if other is None else np.asarray(one * other)


@register(
    Card(
        name="decoupled",
        summary="One weight on how far the policy has moved in this update, times one on how far the update began from "
        "the policy that generated the data.",
        formula="c_t = [update weight of log pi - log pi_old]_t x [behaviour weight of log pi_old - log mu]_t; with "
        "anchor=alpha: log pi_old = log mu + alpha (log pi - log mu); with anchor='lag': alpha_t = 1 - 1 / max(lag_t, "
        "1)",
        source="decoupled PPO: Hilton et al. 2021, arXiv 2110.00641; AReaL, arXiv 2505.24298; interpolated: A-3PO, "
        "arXiv 2512.06547",
        defaults="update='ppo_clip', behaviour='token' and anchor='old', decoupled PPO. AReaL drops tokens by "
        "behaviour=theory.weight('masked', interval=(0.0, 5.0)), an older default of AReaL's.",
        aliases=(
            "decoupled PPO",
            "AReaL use_decoupled_loss",
            "A-3PO (anchor='lag')",
            "verl rollout correction, decoupled mode (behaviour='truncated')",
            "IcePop times PPO (behaviour='masked')",
            "OpenRLHF vllm_is_correction_type=tis | icepop (behaviour='cispo' | 'masked', bounds (0.5, 5.0))",
        ),
        caution="update and behaviour are names, or weights with options. The sign of the advantage is asked for where "
        "either looks at it. token x token is `token` of pi over mu: what three policies change is where a clip bends. "
        "A-3PO's alpha by versions, (v_old - v_mu) / (v_pi - v_mu), is 1 - 1/lag where the update began one version "
        "ago; another description has alpha = 1/lag. At lag 0 pi is mu, and all of the ratio is the update's. Where "
        "either weight is zero so is the product. Where the two are of different kinds (a sequence, a token), "
        "theory.decompose takes the token ratio for the product that is truncated. baseline_invariant is said only "
        "where it is proved: both look back alone, or are the same weight. Ratios that underflow in one factor and "
        "overflow in the other multiply to 0.",
    ),
    factors=_factors,
    needs=_needs,
    uses_advantage=lambda update, behaviour, anchor: weight(update).uses_advantage or weight(behaviour).uses_advantage,
    baseline_invariant=_baseline_invariant,
    check=_check,
    parts=_parts,
)
def decoupled(
    tokens: Tokens,
    *,
    update: str | Weight = "ppo_clip",
    behaviour: str | Weight = "token",
    anchor: float | str = "old",
) -> Any:
    """c_t = update weight x behaviour weight, each of its own log-ratios."""
    ours, theirs = _split(tokens.xp, tokens.log_ratio, anchor, tokens.given)
    return _times(tokens.xp, _coefficients(update, tokens, ours), _coefficients(behaviour, tokens, theirs))
