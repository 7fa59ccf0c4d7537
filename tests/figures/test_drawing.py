"""What all figures have in common."""

import struct
import subprocess
import sys

import numpy as np
import pytest

import figures
from figures import __main__ as command
from figures import bias_terms, mse_by_batch, relative_bias_by_drift, style, variance_by_horizon, weight_by_position

MODULES = (relative_bias_by_drift, variance_by_horizon, mse_by_batch, weight_by_position, bias_terms)


@pytest.fixture
def small(monkeypatch):
    """The computed figures at sizes that take a moment."""
    monkeypatch.setitem(variance_by_horizon.draw.__kwdefaults__, "horizons", (1, 10))
    monkeypatch.setitem(weight_by_position.draw.__kwdefaults__, "positions", (1, 10))
    monkeypatch.setitem(bias_terms.draw.__kwdefaults__, "kls", (0.1,))
    monkeypatch.setitem(bias_terms.draw.__kwdefaults__, "weights", ("token", "gspo"))


@pytest.mark.usefixtures("small")
def test_all_are_drawn_twice_with_the_same_bytes(results, tmp_path):
    paths = figures.draw_all(results, tmp_path / "a")
    again = figures.draw_all(str(results), tmp_path / "b")
    assert sorted({p.stem for p in paths}) == sorted({*figures.FIGURES, "mse_by_batch_crossovers"})
    for path, other in zip(paths, again, strict=True):
        content = path.read_bytes()
        assert content == other.read_bytes(), path.name
        assert len(content) > 300
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            width, height = struct.unpack(">II", content[16:24])
            assert width == 1920
            assert height > 800
            assert len(content) > 50_000
    # The control: other data, other bytes.
    other = variance_by_horizon.draw(None, tmp_path / "c", horizons=(1, 20))
    assert all(p.read_bytes() != (tmp_path / "a" / p.name).read_bytes() for p in other)


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_listed(module):
    assert module.NAME in figures.FIGURES
    assert module.__name__ == f"figures.{module.NAME}"


@pytest.mark.parametrize("module", [relative_bias_by_drift, mse_by_batch])
def test_without_a_table_one_sentence_says_what_to_do(module, tmp_path):
    with pytest.raises(ValueError, match="run `testbed sweep` first"):
        module.draw(None, tmp_path)
    with pytest.raises(ValueError, match="there is no table"):
        module.draw(tmp_path, tmp_path)


def test_command_without_results(tmp_path, capsys):
    assert command.main(["--results", str(tmp_path / "nowhere")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "run `testbed sweep` first" in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("small")
def test_command_names_what_it_wrote(results, tmp_path, capsys):
    assert command.main(["--results", str(results), "--out", str(tmp_path)]) == 0
    written = capsys.readouterr().out.split()
    assert sorted(written) == sorted(str(p) for p in tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_a_figure_without_data_is_left_out(results, tmp_path, monkeypatch, capsys):
    def unreachable(_):
        return {"status": np.array(["unreachable"]), "kl_target": np.array([0.1])}

    monkeypatch.setattr("testbed.sweep.read_table", unreachable)
    drawn = {p.stem for p in figures.draw_all(results, tmp_path)}
    assert drawn == {"variance_by_horizon", "weight_by_position", "bias_terms"}
    assert capsys.readouterr().err.count("is left out: no cell of the table") == 3


@pytest.mark.usefixtures("small")
def test_a_figure_that_fails_does_not_touch_the_others(results, tmp_path, monkeypatch, capsys):
    def broken(results, out):
        raise RuntimeError("on\npurpose")

    monkeypatch.setattr(mse_by_batch, "draw", broken)
    drawn = {p.stem for p in figures.draw_all(results, tmp_path)}
    assert drawn == set(figures.FIGURES) - {"mse_by_batch"}
    assert capsys.readouterr().err == "figures: mse_by_batch failed: RuntimeError: on purpose\n"


def test_importing_is_light():
    heavy = "import sys, figures; print(sorted({'matplotlib', 'numpy', 'testbed', 'theory'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_weight_is_told_apart_by_colour_and_without_it():
    strangers = ["gspo", "cispo", "m2po"]
    looks = [style.look(w, strangers) for w in (*style.FAVOURITES, *strangers)]
    assert len({x["marker"] for x in looks}) == len(looks)
    assert len({(x["color"], str(x["linestyle"])) for x in looks}) == len(looks)
