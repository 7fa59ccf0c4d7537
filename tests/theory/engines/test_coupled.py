"""Weights that couple a batch: what is solved exactly, what is refused, and what the causes of their bias add up to."""

import numpy as np
import pytest

import theory
from tests.brute_force_batches import coupled_moments
from tests.instances import random_instance
from tests.theory.engines.comparing import ask

WEIGHTS = [
    theory.weight("m2po", budget=0.1, clip=(0.95, 1.05)),
    theory.weight("self_normalised", level="sequence"),
    theory.weight("self_normalised", level="prefix"),
]
INSTANCE = random_instance(S=3, A=2, T=2, drift=1.0)


@pytest.mark.parametrize("reduction", ["sum", "token_mean", "length_mean", "constant"])
@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: w.label)
def test_every_reduction_of_a_coupled_batch_is_every_tuple_of_its_trajectories(weight, reduction):
    mean, outer = coupled_moments(*INSTANCE, weight, "outcome", 2, reduction)
    m = ask(INSTANCE, weight, "outcome", "auto", reduction=theory.reduction(reduction, batch=2), covariance=True)
    assert m.engine == "enumeration"
    np.testing.assert_allclose(m.mean, mean, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(m.covariance, outer - np.outer(mean, mean), rtol=0, atol=1e-11)


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: w.label)
@pytest.mark.parametrize("signal", ["outcome", theory.group(2, scale="none")])
def test_the_causes_of_a_coupled_bias_add_up(weight, signal):
    e = theory.Estimator(weight, signal, reduction=theory.reduction("sum", batch=2))
    d = theory.decompose(*INSTANCE, e)
    m = theory.moments(*INSTANCE, e)
    np.testing.assert_allclose(sum(d.terms.values()), m.bias, rtol=0, atol=1e-12)
    np.testing.assert_allclose(d.bias, m.bias, rtol=0, atol=1e-12)
    # The batch is there from the start: the truncation is that of the weight among others, not alone.
    alone = theory.decompose(*INSTANCE, theory.Estimator(weight, "outcome"))
    assert np.abs(d["truncation"] - alone["truncation"]).max() > 1e-6


def test_a_group_is_its_own_batch():
    group = theory.group(4)
    said = theory.Estimator("token", group, reduction=theory.reduction("sum", batch=4))
    assert said == theory.Estimator("token", group)
    assert theory.Estimator("token", group, reduction="token_mean").reduction.batch == 4


def test_the_number_of_batches_is_counted_without_overflow():
    process, target, behaviour = random_instance(S=10, A=3, T=4)
    e = theory.Estimator("m2po", theory.group(62))
    with pytest.raises(ValueError, match=r"over 1e299 batches|e\+\d+ batches"):
        theory.moments(process, target, behaviour, e, "enumeration")
    assert theory.moments(process, target, behaviour, e, trajectories=124).engine == "sampling"


@pytest.mark.parametrize(("most", "fits"), [(1, False), (100, False), (100_000, True)])
def test_the_limit_of_trajectories_counts_those_of_all_batches(most, fits):
    e = theory.Estimator("m2po", "outcome", reduction=theory.reduction("sum", batch=2))
    if fits:
        assert theory.moments(*INSTANCE, e, "enumeration", most_trajectories=most).engine == "enumeration"
    else:
        with pytest.raises(ValueError, match="depend on all 2 trajectories of a draw"):
            theory.moments(*INSTANCE, e, "enumeration", most_trajectories=most)


def test_the_best_baseline_of_a_coupled_weight_is_not_guessed():
    e = theory.Estimator("self_normalised", theory.signal("outcome", baseline="optimal"),
                         reduction=theory.reduction("sum", batch=2))  # fmt: skip
    with pytest.raises(ValueError, match=r"baseline='optimal' is not solved for .*, whose coefficients depend on all"):
        theory.moments(*INSTANCE, e)
    plain = theory.Estimator("self_normalised", "outcome", reduction=theory.reduction("sum", batch=2))
    with pytest.raises(ValueError, match="is not solved for"):
        theory.optimal_baseline(*INSTANCE, plain)
    # Alone in its batch the weight couples nothing, and the least variance is found.
    single = theory.Estimator("self_normalised", theory.signal("outcome", baseline="optimal"))
    assert theory.moments(*INSTANCE, single).variance > 0.0
