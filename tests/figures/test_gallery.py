import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import theory
from figures import FIGURES, gallery
from testbed import drift
from testbed.environments import environment

FOLDER = Path(__file__).parents[2] / "docs" / "figures"
EXPERIMENT = FOLDER.parent / "staleness"


def test_the_page_is_made_from_the_data_beside_it():
    page = (FOLDER / gallery.PAGE).read_text(encoding="utf-8")
    assert page == gallery.text(FOLDER, EXPERIMENT)
    images = re.findall(r"!\[[^]]+\]\((.*?)\.png\)", page)
    assert images == [*FIGURES, *(f"{gallery.EXPERIMENT}/{name}" for name in gallery.EXPERIMENT_SENTENCES)]
    for image in images:
        assert (FOLDER / f"{image}.png").is_file()
        assert (FOLDER / f"{image}.csv").is_file()
        assert (FOLDER / f"{image}.svg").is_file()


def test_other_data_are_another_page(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "figures")
    path = tmp_path / "figures" / "variance_by_horizon.csv"
    lines = path.read_text().splitlines()
    (place,) = [i for i, line in enumerate(lines) if line.startswith("target_advantage,minpro,1000,")]
    fields = lines[place].split(",")
    fields[5] = "7.25"  # the relative bias
    path.write_text("\n".join([*lines[:place], ",".join(fields), *lines[place + 1 :]]) + "\n")
    assert "whose bias is then 7.2 of it" in gallery.text(tmp_path / "figures", EXPERIMENT)
    path.write_text("\n".join([*lines[:place], *lines[place + 1 :]]) + "\n")
    with pytest.raises(ValueError, match=r"0 rows have .*minpro"):
        gallery.text(tmp_path / "figures", EXPERIMENT)


def test_the_committed_data_are_what_the_engines_say():
    """From an environment and a drift that are made here; the other figures have tests of their own."""
    with (FOLDER / "variance_by_horizon.csv").open(newline="", encoding="utf-8") as file:
        rows = {(r["weight"], int(r["horizon"])): r for r in csv.DictReader(file)}
    longest = environment("garnet", states=6, actions=4, horizon=1000)
    for T in (3, 100):
        process = environment("garnet", states=6, actions=4, horizon=T).process
        pair = drift.at("noise", process, longest.target, kl=0.01)
        for weight in ("token", "prefix", "minpro"):
            estimator = theory.Estimator(weight, "target_advantage")
            m = theory.moments(process, pair.target, pair.behaviour, estimator)
            row = rows[weight, T]
            np.testing.assert_allclose(float(row["relative_bias"]), m.relative_bias, atol=1e-8)
            spread = m.variance**0.5 / np.linalg.norm(m.gradient)
            np.testing.assert_allclose(float(row["relative_standard_deviation"]), spread, rtol=1e-6)
    assert rows["token", 3]["relative_bias"] != rows["token", 100]["relative_bias"]
