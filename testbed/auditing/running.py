"""`testbed.audit`: a loss of the user against the truth and against every named estimator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from testbed.auditing import findings as suspicions
from testbed.auditing import reductions, spelling
from testbed.auditing.candidates import candidates
from testbed.auditing.decomposing import causes, in_theory
from testbed.auditing.expectation import expected
from testbed.auditing.expecting import averaged_log_ratios, compared, presets
from testbed.auditing.leaks import coupling, level_dependence, mask_leaks, micro_batches
from testbed.auditing.loss import as_loss, import_torch
from testbed.auditing.matching import ANCHORS, EQUAL, Candidate, Evidence, Match, evidence, named_gradient, search
from testbed.auditing.probes import SHOWN, probes, token_advantages
from testbed.auditing.record import Audit, Finding, Token
from testbed.auditing.robustness import robustness
from testbed.auditing.setting import setting


def audit(
    loss: Callable[..., Any] | str,
    *,
    options: Mapping[str, Any] | None = None,
    environment: Any = "token_tree(depth=4)",
    drift: str = "noise",
    kl: float = 0.1,
    seed: int = 0,
    signal: Any = "target_advantage",
    batch: int | None = None,
    draws: int = 2000,
    expect: str = "",
    reduction: str = "",
) -> Audit:
    """What a policy loss really ascends: its coefficients, its name, its exact bias and variance, and its mistakes.

    A loss is a function whose parameters are matched by name: `logp` (requires grad), `old_logp`, `rollout_logp`,
    `advantages` and `mask`, all (N, T) tensors of float64; it returns a scalar, to be minimised. Its ascent direction
    is g_hat = -sum over t of (d loss / d logp_t) z_t, and c_t = -(d loss / d logp_t) / A_t are its coefficients.

    The expectation is over every draw of trajectories, each of which goes through the loss once, or over sampled draws
    with standard errors where they are too many; `Audit.moments.engine` says which. `old_logp` is that of mu, unless
    the loss also takes `rollout_logp`: then it is the geometric mean of target and mu.

    Args:
        loss: the function, or "package.module:function".
        options: values of its other parameters.
        environment: an environment, or its name with options, such as "brackets(horizon=6)".
        drift: a kind of drift, with options, or "given" where the environment brings mu.
        kl: KL(mu || pi) per token, in nats.
        seed: of a random drift, and of sampled draws.
        signal: what `advantages` holds: a name with options such as "outcome" or "group(size=2)".
        batch: trajectories in one call of the loss; by default 1, the group's size, or 2 where sequences couple.
        draws: how many to sample where not all can be visited; 50 times as many where sequences do not couple, since
            such draws share calls of the loss.
        expect: a named weight to compare with, such as "ppo_clip(clip=(0.8, 1.28))"; see `Audit.expected`.
        reduction: the reduction that is expected: "sum", "length_mean", "constant", "token_mean", or one of
            `testbed.auditing.reductions.REDUCTIONS`.

    Raises:
        ValueError: PyTorch is missing; the loss cannot be imported, has a parameter that nothing fills, fails, returns
            no scalar or is not differentiable; or a name or option is unknown.
    """
    torch = import_torch()
    function = spelling.function_at(loss) if isinstance(loss, str) else loss
    mine = as_loss(function, options, loss.rpartition(":")[2] if isinstance(loss, str) else "")
    with _one_thread(torch):
        seen = evidence(mine, probes())
        batches = seen.batches
        asked = compared(seen, expect, reduction) if expect else None
        accepted = reductions.accepted(reduction) if reduction else ()
        couples, mask = coupling(mine, batches[0]), mask_leaks(mine, batches[0])
        level, micro = level_dependence(mine, batches[0]), micro_batches(mine, batches[0], batches[-1])
        weights = list(candidates(mine))
        ranked = search(seen, weights)
        best = ranked[0] if ranked else None
        by_token = _holds_by_token(mine, best)
        cases = robustness(mine)
        found: list[Finding] = []
        if seen.silent:
            found.append(
                suspicions.finding("detached_everything", "no gradient reaches logp: everything is detached or zero")
            )
        else:
            found += suspicions.of_match(seen, best, weights, level)
            named = {f.identifier for f in found}
            if not named & {"swapped_ratio", "missing_stop_gradient", "off_by_one_prefix"}:
                found += suspicions.of_normaliser(seen, ranked, reduction)
            averaged = averaged_log_ratios(seen, expect) if asked is not None and not asked.equal else None
            found += [averaged] if averaged is not None else []
            padded = () if accepted and "width_mean" in accepted else suspicions.of_padding(mask)
            found += [*suspicions.of_mask(mask), *padded]
            found += suspicions.of_batch(couples, micro, by_token is False, level, best)
        found += suspicions.of_robustness(cases, best)
        kept_count = best is not None and best.largest <= EQUAL and best.reduction.startswith("kept")
        separate = not (couples.couples or kept_count)
        where = setting(mine, environment, drift, kl, seed, signal, 0 if batch is None else batch, not separate)
        answer = expected(mine, where, separate, draws, seed)
    estimator = in_theory(best, where) if best is not None and best.largest <= EQUAL else None
    return Audit(
        loss=mine.name,
        takes=mine.takes,
        options=mine.options,
        setting=where.label,
        moments=answer.moments,
        baseline_leak=answer.leak,
        causes=causes(answer.moments, estimator, where),
        equals=tuple(match for match in ranked if match.equal),
        nearest=best,
        presets=presets(best) if best is not None and best.equal else (),
        per_token_advantages=by_token,
        tokens=_tokens(seen, best),
        mask=mask,
        level=level,
        coupling=couples,
        micro_batches=micro,
        robustness=cases,
        findings=tuple(sorted(found, key=lambda f: not f.fault)),
        expected=asked,
        _evidence=seen,
    )


def _holds_by_token(mine: Any, best: Match | None) -> bool | None:
    """Whether an exact match survives advantages that differ within a sequence."""
    if best is None or best.largest > EQUAL:
        return None
    batches = [token_advantages(batch) for batch in probes()]
    again = search(evidence(mine, batches), [best.weight], (best.score,))
    return any(m.largest <= EQUAL and m.anchor == best.anchor for m in again)


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


@contextmanager
def _one_thread(torch: Any) -> Iterator[None]:
    """Two threads on small matrices are slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
