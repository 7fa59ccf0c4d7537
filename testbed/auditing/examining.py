"""Everything about a loss that needs no environment: what it is, what it looks at, its mistakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from testbed.auditing import findings as suspicions
from testbed.auditing import identifying, penalties, reductions
from testbed.auditing.advantages import AdvantageUse, advantage_use
from testbed.auditing.candidates import candidates, harvested
from testbed.auditing.expecting import averaged_log_ratios, compared, named, presets
from testbed.auditing.leaks import (
    Coupling,
    LevelDependence,
    MaskLeaks,
    MicroBatches,
    coupling,
    level_dependence,
    mask_leaks,
    micro_batches,
)
from testbed.auditing.loss import Loss
from testbed.auditing.matching import FAR, Candidate, Match, named_gradient, refitted, search
from testbed.auditing.observing import ANCHORS, SINGLE, Evidence, evidence
from testbed.auditing.probes import FULL, HOLES, SHOWN, probes, token_advantages
from testbed.auditing.record import Finding, Token
from testbed.auditing.robustness import Case, robustness


@dataclass(frozen=True, eq=False)
class Examined:
    """What `Audit` has of a loss itself, under the same names."""

    seen: Evidence
    tried: tuple[float, ...]
    findings: tuple[Finding, ...]
    tokens: tuple[Token, ...] = ()
    equals: tuple[Match, ...] = ()
    nearest: Match | None = None
    presets: tuple[str, ...] = ()
    by_token: bool | None = None
    mask: MaskLeaks | None = None
    advantages: AdvantageUse | None = None
    level: LevelDependence | None = None
    coupling: Coupling | None = None
    micro_batches: MicroBatches | None = None
    robustness: tuple[Case, ...] = ()
    expected: Match | None = None
    remains: bool = False
    """Whether a gradient remains at advantages of zero."""
    random: bool = False
    """Whether two calls with the same input differ: then nothing else can be told."""


def examined(mine: Loss, expect: str, reduction: str, progress: Callable[[str], None]) -> Examined:
    """Every check, each of which evaluates the loss on probes."""
    progress("probes")
    seen = evidence(mine, probes())
    tried = harvested(mine)[0]
    weight, own = named(expect) if expect else (None, "")
    reductions.accepted(reduction or own or "sum")
    apart = _between_calls(mine, seen)
    if apart > 0.0:
        sentence = (
            f"two calls with the same input differ by {apart:.3g} of the largest gradient: nothing else was compared"
        )
        fault = suspicions.finding("not_deterministic", sentence, relative_difference=apart)
        return Examined(seen, tried, (fault,), remains=True, random=True)
    couples = coupling(mine, seen.batches, seen.tolerance)
    if couples.couples:
        seen = _with_one_alone(seen, couples)
    asked = compared(seen, expect, reduction) if expect else None
    remains = penalties.remaining(seen)
    policy = seen if remains is None else penalties.without(seen, remains)
    progress("named estimators")
    weights = list(dict.fromkeys([*([] if weight is None else [weight]), *candidates(mine)]))
    ranked = search(policy, weights)
    if ranked and not ranked[0].exact and ranked[0].largest <= SINGLE:
        seen, policy = replace(seen, tolerance=SINGLE), replace(policy, tolerance=SINGLE)
        ranked = search(policy, weights)
        asked = compared(seen, expect, reduction) if expect else None
    closest = ranked[0] if ranked else None
    best = closest if remains is None or closest is None else refitted(seen, closest)
    by_token = _holds_by_token(mine, best)

    progress("leaks")
    batches, rounding = seen.batches, seen.tolerance
    couples = coupling(mine, batches, rounding) if couples.couples and rounding > couples.rounding else couples
    ragged, full = batches[0], batches[FULL]
    mask, level = mask_leaks(mine, ragged, batches[HOLES], rounding), level_dependence(mine, ragged, rounding)
    micro, use = micro_batches(mine, ragged, full, rounding), advantage_use(mine, ragged, full)
    cases = robustness(mine)

    progress("mistakes")
    found: list[Finding] = []
    if seen.silent and not seen.masked_only:
        found.append(
            suspicions.finding("detached_everything", "no gradient reaches logp: everything is detached or zero")
        )
    else:
        accepted = reductions.accepted(reduction or own) if reduction or own else ()
        found += suspicions.of_advantages(use, mine.takes, best)
        found += identifying.of_penalty(seen, remains, closest)
        found += suspicions.of_mask(mask, mine.takes, rounding)
        padded = list(() if "width_mean" in accepted else suspicions.of_padding(mask, mine.takes, rounding))
        found += [*padded, *identifying.of_match(policy, closest, weights, level)]
        if closest is not None and closest.exact:
            found += identifying.of_reduction(closest, reduction)
        elif not couples.couples and not identifying.EXPLAINED & {f.identifier for f in found}:
            found += identifying.of_normaliser(policy, weights)
        averaged = averaged_log_ratios(seen, expect) if asked is not None and not asked.equal else None
        found += [averaged] if averaged is not None else []
        found += suspicions.of_batch(couples, micro, by_token is False, level, best)
    if not seen.finite_value:
        found.append(
            suspicions.finding("loss_not_finite", "the loss is not finite at ordinary inputs, its gradient is")
        )
    found += suspicions.of_robustness(cases, best)
    faulty = {f.identifier for f in found}
    known = best is not None and best.equal and "padding_in_the_mean" not in faulty
    near = best if best is not None and (best.exact or best.distance <= FAR) else None
    return Examined(
        seen=seen,
        tried=tried,
        findings=tuple(sorted(found, key=lambda f: not f.fault)),
        tokens=_tokens(seen, near),
        equals=tuple(m for m in ranked if m.equal) if best is closest else (),
        nearest=near,
        presets=presets(best) if known and best is not None else (),
        by_token=by_token,
        mask=mask,
        advantages=use,
        level=level,
        coupling=couples,
        micro_batches=micro,
        robustness=cases,
        expected=asked,
        remains=remains is not None,
    )


def _with_one_alone(seen: Evidence, couples: Coupling) -> Evidence:
    """One more probe: the sequence that is most different alone; what equals on all others may differ there."""
    batch, row = couples.worst
    one = evidence(seen.loss, [seen.batches[batch].rows(slice(row, row + 1))], strict=False)
    if not all(np.isfinite(a).all() for a in one.ascents):
        return seen
    return replace(seen, batches=seen.batches + one.batches, ascents=seen.ascents + one.ascents)


def _between_calls(mine: Loss, seen: Evidence) -> float:
    """Largest relative difference of a second evaluation from the first."""
    again = [np.where(b.counted, mine.at(b).ascent, 0.0) for b in seen.batches]
    return max(
        float(np.abs(one - two).max()) / (float(np.abs(one).max()) or 1.0)
        for one, two in zip(seen.ascents, again, strict=True)
    )


def _holds_by_token(mine: Loss, best: Match | None) -> bool | None:
    """Whether an exact match survives advantages that differ within a sequence."""
    if best is None or not best.exact:
        return None
    batches = [token_advantages(batch) for batch in probes()]
    again = search(replace(evidence(mine, batches), tolerance=best.tolerance), [best.weight], (best.score,))
    return any(m.exact and m.anchor == best.anchor for m in again)


def _tokens(seen: Evidence, best: Match | None) -> tuple[Token, ...]:
    """The small probe, token by token, with the constant and the reduction of the named estimator taken out."""
    batch, ascent = seen.batches[SHOWN], seen.ascents[SHOWN]
    anchor = best.anchor if best is not None else (seen.loss.anchors or ("rollout_logp",))[0]
    log_ratio = ANCHORS[anchor](batch)
    named, factor = np.full(ascent.shape, np.nan), np.ones((1, 1))
    if best is not None:
        raw = named_gradient(Candidate(best.weight, best.anchor, best.score), batch)
        named = raw / np.where(batch.counted, batch.advantages, 1.0)
        factor = reductions.factor(best.reduction, batch.mask, raw != 0.0) * (best.constant or 1.0)
    c = ascent / np.where(batch.counted, batch.advantages, 1.0) / factor
    return tuple(
        Token(n, t, float(log_ratio[n, t]), float(batch.advantages[n, t]), float(c[n, t]), float(named[n, t]))
        for n, t in np.argwhere(batch.counted).tolist()
    )
