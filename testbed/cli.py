"""The command line `testbed`. Each command imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Exact bias and variance of off-policy corrections, in environments whose true gradient is known.",
    epilog="Exit status: 0 done, 1 what was asked for did not hold or tasks failed, 2 wrong use.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="environments, weights, presets, signals, drifts, diagnostics or engines; all by default.",
        ),
    ] = "",
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Every card in full, as docs/cards.md has it.")] = False,
) -> None:
    """List what has a name, one line each."""
    from testbed.listing import print_list, print_reference

    if markdown:
        print_reference(what, as_json=json)
    else:
        print_list(what, as_json=json)


@app.command()
def sweep(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Settings as TOML, or zoo, or samplers.", show_default="default"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where results go.", show_default="results/NAME")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Local processes.", show_default="one per core")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="0,1,2", help="Seeds of random drifts, instead of the file's.", show_default=False
        ),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option("--length", metavar="8,1000", help="Horizons, instead of the file's.", show_default=False),
    ] = None,
    kl: Annotated[
        str | None,
        typer.Option("--kl", metavar="0.01,0.1", help="Divergences, instead of the file's.", show_default=False),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small cut: two environments, two divergences, one seed.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure the bias and variance of every correction in a grid of settings.

    Prints a summary, and writes the table, its data sheet and figures. Run the
    same command again to finish a sweep that was interrupted: what is done is
    kept, and the table comes out the same. `zoo` prints every number of every
    correction at one length and divergence, `samplers` what top-p, top-k and
    rounded logits do to each.
    """
    from testbed.sweep.command import sweep_command

    raise typer.Exit(sweep_command(file, out, workers, seeds, quick=quick, as_json=json, length=length, kl=kl))


@app.command()
def figures(
    results: Annotated[Path, typer.Option("--results", metavar="FOLDER", help="A sweep's folder of results.")] = Path(
        "results/default"
    ),
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where figures go.", show_default="RESULTS/figures")
    ] = None,
) -> None:
    """Draw every figure from a sweep's table, each with the data behind it."""
    from testbed.sweep.command import drawn

    for path in drawn(results, out or results / "figures"):
        print(path)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One claim, in full; all by default.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where it goes.", show_default="results/ledger")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Local processes.", show_default="one per core")
    ] = None,
    json: Json = False,
) -> None:
    """Settle what is claimed about these corrections by exact numbers.

    Prints each claim with its verdict, numbers and smallest counterexample, and
    writes the ledger. Exit status 1 if something departs from the record. With
    NAME: that claim alone, with its tables and code; files only with --out.
    """
    from testbed.ledger.command import verify_command

    raise typer.Exit(verify_command(name, out, workers, as_json=json))


@app.command()
def audit(
    loss: Annotated[str, typer.Argument(metavar="PACKAGE.MODULE:FUNCTION", help="The loss, to be minimised.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="A further parameter of the loss.")
    ] = None,
    expect: Annotated[str, typer.Option("--expect", metavar="NAME", help="Compare with this weight or preset.")] = "",
    reduction: Annotated[
        str, typer.Option("--reduction", metavar="NAME", help="Expect this reduction, such as token_mean.")
    ] = "",
    environment: Annotated[str, typer.Option("--environment", metavar="NAME")] = "token_tree(depth=4)",
    drift: Annotated[str, typer.Option("--drift", metavar="KIND")] = "noise",
    kl: Annotated[float, typer.Option("--kl", metavar="NATS", help="KL(mu || pi) per token.")] = 0.1,
    seed: Annotated[int, typer.Option("--seed", metavar="N")] = 0,
    signal: Annotated[str, typer.Option("--signal", metavar="NAME", help="What advantages holds.")] = (
        "target_advantage"
    ),
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", help="Trajectories per call.", show_default="1 or a group's")
    ] = None,
    json: Json = False,
) -> None:
    """Say what a torch loss really ascends: its name, bias, variance, mistakes.

    Its parameters are matched by name: logp, old_logp, rollout_logp, advantages,
    mask, all (N, T). Names take options: --expect "ppo_clip(clip=(0.8, 1.28))".
    Exit status 1 where the loss is not what --expect or --reduction says.
    """
    from testbed.auditing.command import audit_command

    where = {"environment": environment, "drift": drift, "kl": kl, "seed": seed, "signal": signal, "batch": batch}
    raise typer.Exit(audit_command(loss, option or [], expect, reduction, as_json=json, **where))


@app.command()
def train(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Settings as TOML.", show_default="the defaults")
    ] = None,
    weight: Annotated[str | None, typer.Option("--weight", metavar="NAME", show_default="ppo_clip")] = None,
    signal: Annotated[str | None, typer.Option("--signal", metavar="NAME", show_default="group(size=8)")] = None,
    staleness: Annotated[
        int | None, typer.Option("--staleness", metavar="K", help="Age of rollouts, in updates.", show_default="0")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", metavar="N", help="Updates.", show_default="300")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", metavar="X", show_default="3e-4")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", show_default="0")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting: prompts=16, task.slack=1."),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Bias, variance and cosine of the estimator.")] = False,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="cpu or cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", show_default="results/train/...")] = None,
    json: Json = False,
) -> None:
    """Train a tiny transformer on arithmetic with stale rollouts.

    Any estimator, evaluated exactly along the way: names take options, such as
    --weight "minpro(clip=(0.8, 1.28))". With --exact all answers to some prompts
    are enumerated, and the table says what the estimator really does to this
    network. The same command goes on where a killed run was. Needs PyTorch.
    """
    from testbed.arithmetic.training.command import train_command

    chosen = {
        "weight": weight, "signal": signal, "staleness": staleness, "steps": steps, "learning_rate": learning_rate,
        "seed": seed,
    }  # fmt: skip
    raise typer.Exit(train_command(file, chosen, setting or [], out, exact=exact, device=device, as_json=json))


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="staleness, floor, or settings as TOML.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where results go.", show_default="results/NAME")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Local processes.", show_default="one per core")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two methods, two seeds, few updates.")] = False,
    json: Json = False,
) -> None:
    """Compare methods by training: tuned fairly, then fresh seeds, with intervals.

    `staleness` asks whether token-level methods lose stability under old rollouts
    where MinPRO does not. Every method gets the same number of configurations;
    every run is counted, collapsed ones too. Prints the tables, and writes them
    with the runs, their curves and figures. The same command goes on where a
    killed one was. Needs PyTorch.
    """
    from testbed.arithmetic.experiment.command import experiment_command

    raise typer.Exit(experiment_command(name, out, workers, quick=quick, as_json=json))


@app.command()
def explore(
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Whom the page is served to.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option("--port", metavar="N", show_default="8050, or a free one")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it.")] = True,
) -> None:
    """Open a page with controls and the exact numbers they lead to.

    Environment, drift, weights, clip, signal and batch size; bias with its
    causes, variance, error with the places where the winner changes, and what
    the weights look like. The page's address holds its whole state. Runs until
    it is stopped. Needs Dash: pip install 'offpolicy-testbed\\[explore]'.
    """
    from testbed.exploring.command import explore_command

    raise typer.Exit(explore_command(host, port, browser=browser))


def main() -> None:
    """Console entry: every mistake of the user becomes one sentence on standard error and exit status 2."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _say("interrupted", 130)
    except BrokenPipeError:
        status = _reader_left()
    except SystemExit as leaving:
        # The parser itself turns a broken pipe into status 1, which here means that tasks failed.
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        status = _reader_left()
    except MemoryError as error:
        # NumPy says how much it wanted, Python nothing.
        status = _say("not enough memory for what was asked" + (f": {error}" if str(error) else ""), 2)
    except ValueError as error:
        status = _say(str(error), 2)
    except OSError as error:
        status = _say(f"{error.strerror or error}: {str(error.filename)!r}" if error.filename else str(error), 2)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        # Without a command the help has been printed already, and there is nothing to say about it.
        status = 2 if type(error).__name__ == "NoArgsIsHelpError" else _say(_usage(error), 2)
    sys.exit(status if isinstance(status, int) else 0)


def _reader_left() -> int:
    # Python would complain once more while flushing at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # 128 + SIGPIPE, as of any program that ends so


def _say(sentence: str, status: int) -> int:
    print(f"testbed: {sentence}", file=sys.stderr)
    return status


def _usage(error: Any) -> str:
    """The sentence of a parser's error, with the nearest known command or option."""
    from theory.checks import known_name

    context: Any = getattr(error, "ctx", None)
    where = f"; see `{context.command_path} --help`" if context is not None else ""
    try:
        if type(error).__name__ == "NoSuchOption":
            names = [name for parameter in context.command.params for name in parameter.opts if name.startswith("-")]
            known_name("option", error.option_name, [*names, "--help"])
        unknown = re.match(r"No such command '(.*?)'", error.format_message())
        if unknown is not None:
            known_name("command", unknown[1], context.command.commands)
    except ValueError as nearest:
        return f"{nearest}{where}"
    message = " ".join(error.format_message().split()).rstrip(".")
    return message[:1].lower() + message[1:] + where
