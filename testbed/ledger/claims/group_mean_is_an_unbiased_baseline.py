"""Does the mean of a group, its own member included, leave the gradient alone? And the standard deviation?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import testbed
import theory
from testbed.ledger import cases
from testbed.ledger.record import Claim, Finding, Recorded, Table
from testbed.ledger.tiny import Shows, TinyTree, smallest, tiny_trees

SIZES = (2, 4, 8)
ACROSS = "on policy, two prompts"
KINDS = {"mean": ("mean", "none"), "leave one out": ("leave_one_out", "none"), "mean and std": ("mean", "std")}


def two_prompts() -> cases.Case:
    """A hard and an easy prompt, one token each: success 0.1 and 0.5."""
    end = np.eye(4)[[[2, 3], [2, 3], [2, 2], [3, 3]]]
    process = theory.MarkovProcess(
        np.array([0.5, 0.5, 0.0, 0.0]), end, np.zeros((4, 2)), 1, np.array([0.0, 0.0, 0.0, 1.0])
    )
    policy = theory.SoftmaxPolicy(np.log([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]))
    return cases.Case(process, policy, policy)


def settle() -> Finding:
    """Length and direction of the expected group estimator, on policy and with the sequence ratio."""
    tree = testbed.environment("token_tree", depth=4, vocabulary=3)
    drifted = cases.reference(kl=0.1)
    settings = {
        "on policy, one prompt": (cases.Case(tree.process, tree.target, tree.target), "none"),
        "sequence ratio, one prompt": (drifted, "sequence"),
        ACROSS: (two_prompts(), "none"),
    }
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, float] = {}
    for where, (case, weight) in settings.items():
        for kind, (centre, scale) in KINDS.items():
            for size in SIZES:
                m = cases.moments(case, weight, theory.group(size, centre, scale))
                rows.append((where, kind, str(size), m.effective_step, m.cosine, m.relative_bias))
                if size == 8:
                    numbers[f"effective step, {kind}, G = 8, {where}"] = m.effective_step
                    numbers[f"one minus cosine, {kind}, G = 8, {where}"] = 1.0 - m.cosine

    def bent(tree: TinyTree) -> dict[str, float] | None:
        m = tree.moments("none", theory.group(4, "mean", "std"))
        return {"cosine": m.cosine} if m.cosine < 1.0 - 1e-9 else None

    def biased(centre: str) -> Shows:
        def shows(tree: TinyTree) -> dict[str, float] | None:
            m = tree.moments("none", theory.group(2, centre, "none"))
            wanted = 0.5 if centre == "mean" else 1.0
            off = float(np.abs(m.mean - wanted * m.gradient).max())
            return {"difference": off} if off > 1e-9 else None

        return shows

    def trees(rewards: tuple[int, ...] = (0, 1)) -> Iterator[TinyTree]:
        return tiny_trees(depths=(1, 2), rewards=rewards, on_policy=True)

    searches = (
        smallest("mean, G = 2: not exactly half of the gradient", biased("mean"), trees(), most=200),
        smallest("leave one out, G = 2: not the gradient", biased("leave_one_out"), trees(), most=200),
        smallest("std, G = 4, rewards 0 and 1: direction bent", bent, trees(), most=200),
        smallest("std, G = 4, rewards 0, 1, 2: direction bent", bent, trees(rewards=(0, 1, 2))),
    )
    shrunk = [row for row in rows if row[1] == "mean"]
    unbiased = all(float(row[5]) < cases.ZERO for row in shrunk)
    exactly = all(abs(float(row[3]) - (int(row[2]) - 1) / int(row[2])) < cases.ZERO for row in shrunk)
    left_out = all(float(row[5]) < cases.ZERO for row in rows if row[1] == "leave one out")
    bends = [
        text
        for text, found in (
            ("for two reward values", searches[2].found is not None),
            ("for three reward values", searches[3].found is not None),
            ("across prompts", min(row[4] for row in rows if row[:2] == (ACROSS, "mean and std")) < 1.0 - cases.ZERO),
        )
        if found
    ]
    because = (
        f"the mean shrinks the gradient by {'exactly' if exactly else 'about'} (G-1)/G; leave-one-out is "
        f"{'exact' if left_out else 'biased'}; dividing by the deviation bends the direction {' and '.join(bends)}"
    )
    columns = ("setting", "group", "G", "effective step", "cosine", "relative bias")
    table = Table("Expected estimator of a group, against the true gradient", columns, rows)
    return Finding("holds" if unbiased else "fails", because, numbers, searches, (table,))


CLAIM = Claim(
    name="group_mean_is_an_unbiased_baseline",
    statement="The mean reward of a group is an unbiased baseline for each of its members.",
    sources=("GRPO, arXiv 2402.03300, and threads about it", "Dr.GRPO, arXiv 2503.20783", "RLOO, arXiv 2402.14740"),
    rule="Holds if the estimator with the group's mean, own member included, has zero bias; fails otherwise.",
    settle=settle,
    recorded=Recorded(
        "fails",
        {
            "effective step, mean, G = 8, on policy, one prompt": 0.875,
            "one minus cosine, mean, G = 8, on policy, one prompt": 0.0,
            "effective step, leave one out, G = 8, on policy, one prompt": 1.0,
            "one minus cosine, leave one out, G = 8, on policy, one prompt": 0.0,
            "effective step, mean and std, G = 8, on policy, one prompt": 1.896324,
            "one minus cosine, mean and std, G = 8, on policy, one prompt": 0.0,
            "effective step, mean, G = 8, sequence ratio, one prompt": 0.875,
            "one minus cosine, mean, G = 8, sequence ratio, one prompt": 0.0,
            "effective step, leave one out, G = 8, sequence ratio, one prompt": 1.0,
            "one minus cosine, leave one out, G = 8, sequence ratio, one prompt": 0.0,
            "effective step, mean and std, G = 8, sequence ratio, one prompt": 1.787574,
            "one minus cosine, mean and std, G = 8, sequence ratio, one prompt": 0.0,
            "effective step, mean, G = 8, on policy, two prompts": 0.875,
            "one minus cosine, mean, G = 8, on policy, two prompts": 0.0,
            "effective step, leave one out, G = 8, on policy, two prompts": 1.0,
            "one minus cosine, leave one out, G = 8, on policy, two prompts": 0.0,
            "effective step, mean and std, G = 8, on policy, two prompts": 1.791996,
            "one minus cosine, mean and std, G = 8, on policy, two prompts": 0.003087959,
        },
        found=(
            None,
            None,
            None,
            "T=2, two tokens; pi(1|prefix) = 1/2; mu(1|prefix) = 1/2; R = 1 2 0 0",
        ),
    ),
)
