"""What README.md says is so: its numbers, names, links and commands. `.ci/readme.py` runs the commands themselves."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

import testbed
import theory
from testbed.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def readme():
    specification = importlib.util.spec_from_file_location("readme", ROOT / ".ci" / "readme.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/staleness/README.md", "docs/figures/README.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_command_is_shown_and_every_shown_one_exists(readme):
    commands = [command for command, _ in readme.steps(README)]
    shown = {command.split()[1] for command in commands if command.startswith("testbed ")}
    assert shown == set(typer.main.get_command(app).commands)
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        program, *words = command.split()
        assert program in ("testbed", "make", "pip", "."), command
        if program == "make":
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), command
    for line in re.findall(r"^make ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        assert re.search(rf"^{line}:", makefile, re.MULTILINE), line


def test_continuous_integration_runs_what_the_page_shows(readme):
    run = (ROOT / ".ci" / "run").read_text()
    assert "python3 .ci/readme.py" in run
    commands = [command for command, _ in readme.steps(README)]
    assert set(readme.SERVERS) | set(readme.LEFT_OUT) <= set(commands)
    assert all(re.search(rf"^{command}$", run, re.MULTILINE) for command in readme.LEFT_OUT)


def test_the_runner_tells_other_output_from_what_is_said(readme):
    page = "## A\n```sh\nfirst  # comment\nsecond 1\n```\nwords\n```text\na  1.00\nb  2\n```\n## B\n```text\nc\n```\n"
    assert readme.steps(page) == [("first", []), ("second 1", ["a  1.00", "b  2"])]
    said = ["a  1.00  10", "b  2"]
    assert readme.missing(said, "x\na 1.01 10\ny\nb 2\n") is None
    assert readme.missing(said, "b 2\na 1.00 10\n") == "b  2"
    assert readme.missing(said, "a 1.03 10\nb 2\n") == said[0]
    assert readme.missing(said, "c 1.00 10\nb 2\n") == said[0]
    assert not readme.same_word("2", "3")
    assert readme.same_word("10,710", "10,710")


def test_the_counts_are_those_of_the_registries():
    counts = re.search(r"(\d+) weights and (\d+) presets", README).groups()
    assert [int(count) for count in counts] == [len(theory.weight_cards()), len(theory.preset_cards())]
    assert int(re.search(r"settles (\d+) statements", README).group(1)) == len(testbed.claim_names())
    assert len(re.findall(r"^\d+\. \[.*\]\(notebooks/", README, re.MULTILINE)) == len([*ROOT.glob("notebooks/*.ipynb")])


def row(start):
    found = [line for line in README.splitlines() if line.startswith(f"| {start}")]
    assert len(found) == 1
    return [float(number) for number in re.findall(r"(?<![\w.])[+-]?\d+\.\d+", found[0])]


@pytest.mark.parametrize(
    ("claim", "start", "numbers"),
    [
        (
            "prefix_ratio_is_the_rigorous_correction",
            "the prefix ratio is the rigorous",
            lambda f: [f.searches[2].numbers["truth"], f.searches[2].numbers["expected estimate"]],
        ),
        (
            "effective_sample_size_tells_when_the_gradient_is_wrong",
            "the effective sample size",
            lambda f: [f.searches[0].numbers[name] for name in ("ESS, sequence", "KL", "truth", "expected estimate")],
        ),
        (
            "gspo_ratio_is_an_importance_weight",
            "GSPO's ratio",
            lambda f: [f.numbers["E[W^(1/T)], T = 4, KL 0.1"], 0.1],
        ),
        (
            "truncated_sequence_ratio_is_unbiased",
            "truncating the sequence ratio",
            lambda f: [f.numbers[f"relative bias, cap {cap}"] for cap in (2, 10)],
        ),
    ],
)
def test_the_numbers_of_the_claims_are_computed(claim, start, numbers):
    (settled,) = testbed.verify(claim)
    said, computed = row(start), numbers(settled.finding)
    assert len(said) == len(computed)
    for ours, theirs in zip(said, computed, strict=True):
        decimals = len(f"{ours!r}".partition(".")[2])
        assert ours == pytest.approx(round(float(theirs), decimals), abs=1e-12)


def test_claims_without_numbers_hold_too():
    (group,) = testbed.verify("group_mean_is_an_unbiased_baseline")
    np.testing.assert_allclose(group.finding.numbers["effective step, mean, G = 8, on policy, one prompt"], 7 / 8)
    np.testing.assert_allclose(group.finding.numbers["effective step, leave one out, G = 8, on policy, one prompt"], 1)
    (k3,) = testbed.verify("k3_is_a_good_kl_loss")
    assert k3.finding.numbers["k3 in the loss: gradient error, reversed_target_states"] < 1e-12
    assert k3.finding.numbers["k3 in the loss: gradient error, target_states"] > 0.1
    (minpro,) = testbed.verify("minpro_keeps_baseline_invariance")
    leaks = [*minpro.finding.numbers.values()]
    assert leaks[0] < 1e-12
    assert min(leaks[1:3]) > 0.1


CONFIGURATIONS = {
    "token ratio": ("token ratio", "`token`"),
    "MinPRO unclipped": ("MinPRO without a clip", "`minpro`"),
    "MinPRO clipped": ("MinPRO clipped", "`minpro(clip=(0.5, 2.0))`"),
    "GRPO": ("GRPO (PPO's clip)", "`ppo_clip(clip=(0.8, 1.28))`"),
    "GSPO": ("GSPO", "`gspo(clip=(0.8, 1.2))`"),
    "no correction": ("no correction", "`none`"),
}
"""Rows of the page of the experiment: the method's, and at a high learning rate those of the clip that it chose."""


def test_the_experiment_is_that_of_its_page():
    page = (ROOT / "docs" / "staleness" / "README.md").read_text(encoding="utf-8")
    number = r"(\d\d\.\d)  "
    lines = re.findall(rf"^(\S.*?)  +{3 * number}((?: +\d?\d\.\d){{3}})$", README, re.MULTILINE)
    assert [name for name, *_ in lines] == [*CONFIGURATIONS]
    for name, *best, high in lines:
        method, weight = CONFIGURATIONS[name]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {method} | 7")]
        assert re.findall(r"(\d\d\.\d) ±", row)[1:] == best
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {weight} | ") and line.count(" | ") == 6]
        assert [cell.split()[0] for cell in row.strip("| ").split(" | ")[4:]] == high.split()
    tables = (ROOT / "docs" / "staleness" / "tables.md").read_text(encoding="utf-8")
    for method, weight in (("MinPRO", "`minpro(clip=(0.5, 2.0))`"), ("GRPO", "`ppo_clip(clip=(0.8, 1.28))`")):
        chosen = re.findall(rf"^\| {method} \| (`[^`]+`) \| \S+ \| \d", tables, re.MULTILINE)
        assert chosen[1:4] == [weight] * 3  # K = 8, 32, 128
    assert "The base model has 39.9." in " ".join(README.split())
    assert "39.9 % right when sampled" in " ".join(page.split())


def test_the_page_leaves_no_trace():
    """Its examples register a weight and an environment, and take them out again."""
    code = (
        "import doctest, sys\nfrom testbed.environments.registry import BUILDERS\n"
        "from theory.weights.registry import FAMILIES\nbefore = set(FAMILIES), set(BUILDERS)\n"
        f"failed, tried = doctest.testfile({str(ROOT / 'README.md')!r}, module_relative=False)\n"
        "assert tried > 20 and not failed\nassert before == (set(FAMILIES), set(BUILDERS))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
