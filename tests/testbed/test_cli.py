"""The command line as its users meet it: what it prints where, its exit status, and how light it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed import cli
from testbed.sweep import Choice, read_table
from tests.testbed.sweep.small import CELLS_OF_TINY, TINY

HEAVY = ("torch", "matplotlib", "gymnasium", "numpy", "scipy", "pyarrow")


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the console entry. Returns exit status, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["testbed", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.to_toml())
    return path


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60)


def modules_after(code):
    loaded = python("-c", f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})")
    return set(loaded.stdout.splitlines()[-1].split())


def test_importing_the_package_loads_nothing_heavy():
    assert not modules_after("import testbed").intersection(HEAVY)
    # Negative control: the check can see them.
    assert "numpy" in modules_after("import testbed; testbed.Sweep")


def test_help_loads_nothing_heavy_and_answers_at_once():
    code = "import sys; sys.argv = ['testbed', '--help']\nfrom testbed import cli\n"
    assert not modules_after(code + "try: cli.main()\nexcept SystemExit: pass").intersection(HEAVY)

    def seconds():
        start = time.perf_counter()
        python("-m", "testbed", "--help")
        return time.perf_counter() - start

    # The least of several: a busy machine makes single runs slow, never fast.
    assert min(seconds() for _ in range(5)) < 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list", "--help"],
        ["sweep", "--help"],
        ["train", "--help"],
        ["experiment", "--help"],
        ["figures", "--help"],
        ["-h"],
        [],
    ],
)
def test_help_fits_a_screen(arguments, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = run(*arguments)
    assert status == (2 if not arguments else 0)
    lines = (out + err).splitlines()
    assert "Usage" in out + err
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_without_a_command_there_is_the_help_and_nothing_more(run):
    status, out, err = run()
    assert (status, err) == (2, "")
    assert out.strip() == run("--help")[1].strip()


@pytest.mark.skipif(not hasattr(os, "posix_spawn"), reason="the system has no broken pipes")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_leaves_is_not_a_failure_of_tasks(buffered):
    """Found while printing (no buffer) or at the last flush."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "testbed", "list"]
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_too_little_memory_is_one_sentence(run, monkeypatch):
    def greedy(*arguments, **options):
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr("testbed.listing.print_list", greedy)
    status, out, err = run("list")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "not enough memory" in err
    assert "7.28 TiB" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["swep"], ["'swep'", "'sweep'"]),
        (["sweep", "--worker", "2"], ["'--worker'", "'--workers'"]),
        (["--jsn"], ["'--jsn'"]),
        (["list", "weigths"], ["'weigths'", "'weights'"]),
        (["sweep", "nowhere.toml"], ["nowhere.toml", "No such file"]),
        (["sweep", "--workers", "many"], ["--workers"]),
        (["sweep", "--workers", "0"], ["workers is 0", ">= 1"]),
        (["sweep", "--seeds", "one"], ["--seeds is 'one'", "0,1,2"]),
        (["sweep", "zo"], ["unknown sweep 'zo'", "'zoo'"]),
        (["sweep", "zoo", "--kl", "many"], ["--kl is 'many'", "0.01,0.1"]),
        (["sweep", "zoo", "--length", "1.5"], ["--length is '1.5'", "8,1000"]),
        (["sweep", "samplers", "--length", "5"], ["token_tree", "no option 'horizon'", "--length"]),
        (["sweep", "a.toml", "b.toml"], ["b.toml"]),
        (["figures", "--results", "nowhere"], ["nowhere", "testbed sweep"]),
    ],
)  # fmt: skip
def test_wrong_use_is_one_sentence(arguments, words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert all(word in err for word in words), err
    assert not list(tmp_path.iterdir())


def test_wrong_settings_name_the_key_and_the_nearest(run, tiny, tmp_path):
    tiny.write_text(tiny.read_text().replace('"sequence"', '"sequense"'))
    status, out, err = run("sweep", tiny, "--out", tmp_path / "out")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert all(word in err for word in ["tiny.toml", "weights[1]", "'sequense'", "'sequence'"])


def test_a_sweep_without_a_task_is_refused(run, tiny, tmp_path):
    text = tiny.read_text().replace(', "two_token_counterexample"', "").replace('"noise", ', "")
    tiny.write_text(text)
    status, out, err = run("sweep", tiny, "--out", tmp_path / "out")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "no environment here brings a behaviour policy of its own, which drift 'given' needs" in err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(run, tiny):
    status, _, err = run("sweep", tiny, "--out", tiny / "inside-a-file")
    assert status == 2
    assert len(err.splitlines()) == 1


def test_sweep_prints_a_summary_and_names_its_files(run, tiny, tmp_path):
    folder = tmp_path / "out"
    status, out, err = run("sweep", tiny, "--out", folder, "--workers", "1")
    assert status == 0
    assert "target_advantage" in out
    assert "relative bias" in out
    assert max(map(len, out.splitlines())) <= 100
    assert f"{CELLS_OF_TINY} tasks" in err
    assert "table.parquet" in err
    # Neither stream is a terminal: no colours, no bar that redraws itself.
    assert "\x1b" not in out + err
    assert "\r" not in out + err
    status, out, err = run("sweep", tiny, "--out", folder, "--workers", "1", "--json")
    assert status == 0
    data = json.loads(out)
    assert data["tasks"] == data["reused"] == CELLS_OF_TINY
    assert data["failures"] == []
    assert data["summary"]["unbiased"] == {"target_advantage": ["sequence"], "outcome": ["sequence"]}
    assert all(Path(name).is_file() for name in data["files"])
    assert any(name.endswith("table.csv") for name in data["files"])


def test_the_summary_comes_before_the_figures(run, tiny, tmp_path):
    """And at a divergence of zero alone, where one of them has nothing to show, both come."""
    tiny.write_text(tiny.read_text().replace("kl = [0.05, 0.2]", "kl = [0.0]"))
    status, out, err = run("sweep", tiny, "--out", tmp_path / "out", "--workers", "1")
    assert status == 0
    assert "Exact in every cell" in out
    said = [line.split()[0] for line in err.splitlines()]
    assert said[1:] == ["wrote", "figures:", "drew"], err
    assert "relative_bias_by_drift is left out" in err
    assert "mse_by_batch" in err.splitlines()[-1]


def test_seeds_and_quick_change_the_sweep(run, tiny, tmp_path):
    assert run("sweep", tiny, "--out", tmp_path / "a", "--workers", "1", "--seeds", "5", "--json")[0] == 0
    assert set(read_table(tmp_path / "a")["seed"][~(read_table(tmp_path / "a")["drift"] == "given")]) == {5}
    assert run("sweep", tiny, "--out", tmp_path / "b", "--workers", "1", "--quick", "--json")[0] == 0
    assert set(read_table(tmp_path / "b")["kl_target"][:6]) == {0.05}


def test_failed_tasks_give_status_one(run, tiny, tmp_path):
    """The recursion cannot take a clip of the whole sequence's ratio."""
    text = tiny.read_text().replace('"sequence"', '"gspo"').replace('engine = "auto"', 'engine = "recursion"')
    tiny.write_text(text)
    status, out, err = run("sweep", tiny, "--out", tmp_path / "out", "--workers", "1")
    assert status == 1
    assert "gspo" not in out.split("token", 1)[1].split("minpro")[0]
    assert f"{CELLS_OF_TINY // 3} tasks failed" in err
    assert "enumeration" in err
    assert "Traceback" not in err
    assert (tmp_path / "out" / "failures.csv").exists()


def test_the_zoo_at_one_length_and_divergence(run, tmp_path, monkeypatch):
    """Of three weights; the whole registry takes longer."""
    three = [Choice(name) for name in ("token", "prefix", "decoupled")]
    monkeypatch.setattr("testbed.sweep.building.all_weights", lambda: three)
    arguments = ("sweep", "zoo", "--length", "3,4", "--kl", "0.2", "--out", tmp_path / "out", "--workers", "1")
    status, out, err = run(*arguments)
    assert status == 0
    assert out.count("modular_sum(horizon=3), noise drift (seed 0), KL 0.2 per token") == 2
    assert out.count("modular_sum(horizon=4), noise drift (seed 0), KL 0.2 per token") == 2
    assert max(map(len, out.splitlines())) <= 100
    assert "drew" not in err
    rows = json.loads(run(*arguments, "--json")[1])["rows"]
    assert {row["weight"] for row in rows} >= {"token", "prefix", "decoupled", "truncated(cap=5.0)"}
    assert {(row["horizon"], row["kl_target"]) for row in rows} == {(3, 0.2), (4, 0.2)}


@pytest.mark.parametrize("kind", ["environments", "weights", "presets", "signals", "drifts", "diagnostics", "engines"])
def test_list_gives_one_line_each(kind, run):
    status, out, err = run("list", kind)
    data = json.loads(run("list", kind, "--json")[1])
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(data[kind])
    assert all(data[kind].values())


def test_list_alone_gives_everything(run):
    _, out, _ = run("list")
    for word in ("Environments", "parity", "minpro", "outcome", "staleness", "recursion"):
        assert word in out


def test_the_module_is_the_command():
    assert python("-m", "testbed", "list", "engines", "--json").stdout == python(
        "-c", "import sys; sys.argv = ['testbed', 'list', 'engines', '--json']; from testbed.cli import main; main()"
    ).stdout  # fmt: skip
