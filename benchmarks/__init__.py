"""How fast the engines are: `python -m benchmarks` prints each target, its plain-loop twin and its arithmetic floor."""
