import numpy as np
import pytest

import theory
from figures import bias_terms as figure
from testbed import drift, environment

KLS = (0.03, 0.1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return figure.draw(None, tmp_path_factory.mktemp("out"), kls=KLS)


def exact(weight, kl):
    """The bias by enumeration, in units of |g|."""
    made = environment(figure.ENVIRONMENT)
    pair = drift.at("noise", made.process, made.target, kl=kl)
    m = theory.moments(made.process, pair.target, pair.behaviour, figure.estimator(weight), "enumeration")
    return m.bias / np.linalg.norm(m.gradient), (made.process, pair.target, pair.behaviour)


def column(rows, name, **where):
    return np.array([float(r[name]) for r in rows if all(r[key] == value for key, value in where.items())])


@pytest.mark.parametrize("weight", figure.WEIGHTS)
@pytest.mark.parametrize("kl", KLS)
def test_terms_sum_to_the_bias_of_an_enumeration(paths, read, weight, kl):
    rows = [r for r in read(paths[-1]) if r["weight"] == weight and float(r["kl_token"]) == kl]
    bias, instance = exact(weight, kl)
    relative = np.linalg.norm(bias)
    assert relative > 1e-3
    along = column(rows, "projection", position=figure.WHOLE)
    assert along.size == len(theory.decomposition.ORDER)
    assert along.sum() == pytest.approx(relative, rel=1e-9)
    assert column(rows, "share", position=figure.WHOLE).sum() == pytest.approx(1.0, rel=1e-9)
    np.testing.assert_allclose(column(rows, "relative_bias"), relative, rtol=1e-9)
    # Each length is that of its term.
    found = theory.decompose(*instance, figure.estimator(weight), "enumeration")
    g = np.linalg.norm(theory.policy_gradient(*instance[:2]))
    for term, vector in found.terms.items():
        expected = vector @ bias / relative / g
        assert column(rows, "projection", position=figure.WHOLE, term=term) == pytest.approx(expected, abs=1e-12)
    # The control: lengths of the terms themselves, and lengths along the gradient, do not add up to it.
    if weight in ("none", "gspo"):
        assert column(rows, "norm", position=figure.WHOLE).sum() > 1.1 * relative
        direction = theory.policy_gradient(*instance[:2]) / g
        assert abs(sum(v @ direction for v in found.terms.values())) / g < 0.99 * relative


@pytest.mark.parametrize("weight", figure.WEIGHTS)
def test_positions_sum_to_the_terms(paths, read, weight):
    rows = [r for r in read(paths[-1]) if r["weight"] == weight]
    horizon = environment(figure.ENVIRONMENT).process.horizon
    for term in theory.decomposition.ORDER:
        by_token = [r for r in rows if r["term"] == term and r["position"] != figure.WHOLE]
        assert [int(r["position"]) for r in by_token] == list(range(1, horizon + 1))
        assert {float(r["kl_token"]) for r in by_token} == {figure.KL_BY_POSITION}
        whole = [r for r in rows if r["term"] == term and r["position"] == figure.WHOLE]
        at = {float(r["kl_token"]): float(r["projection"]) for r in whole}
        assert column(by_token, "projection").sum() == pytest.approx(at[figure.KL_BY_POSITION], abs=1e-12)


def test_the_text_names_signal_environment_and_drift(paths):
    text = paths[1].read_text(encoding="utf-8")
    for part in ("signal outcome(baseline=expected_return)", "brackets", "noise drift", "KL = 0.1", "length_mean"):
        assert part in text
    for term in theory.decomposition.ORDER:
        assert term.replace("_", " ") in text


def test_without_a_bias_there_is_no_direction(tmp_path, read, monkeypatch):
    unbiased = theory.Estimator("prefix", "target_advantage")
    monkeypatch.setattr(figure, "estimator", lambda weight: unbiased)
    rows = read(figure.draw(None, tmp_path, kls=(0.1,), weights=("prefix",))[-1])
    assert {float(r["projection"]) for r in rows} == {0.0}
    assert {r["share"] for r in rows} == {"nan"}
