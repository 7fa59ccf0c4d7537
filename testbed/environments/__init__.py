"""The zoo: processes whose values are exact, each also a Gymnasium environment under `offpolicy/`."""

# Importing a builder's file enters it in the registry and with Gymnasium.
from testbed.environments import (  # noqa: F401
    brackets,
    chain,
    counterexample,
    digit_addition,
    garnet,
    keyword,
    modular_sum,
    parity,
    token_tree,
    toy_text,
    two_agents,
)
from testbed.environments.importer import from_gymnasium
from testbed.environments.process_env import ProcessEnv
from testbed.environments.registry import (
    Environment,
    EnvironmentCard,
    Parts,
    environment,
    environment_cards,
    register,
)

__all__ = [
    "Environment",
    "EnvironmentCard",
    "Parts",
    "ProcessEnv",
    "environment",
    "environment_cards",
    "from_gymnasium",
    "register",
]
