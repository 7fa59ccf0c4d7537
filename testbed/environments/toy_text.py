"""Gymnasium's own tabular environments, through the importer. Too many trajectories to enumerate: use the recursion."""

from __future__ import annotations

from gymnasium.envs.toy_text import CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.envs.toy_text.frozen_lake import MAPS

from testbed.environments.importer import from_gymnasium
from testbed.environments.options import flag, whole_number
from testbed.environments.policies import leaning_policy
from testbed.environments.registry import EnvironmentCard, Parts, register
from theory import MarkovProcess, checks


def _with_policy(process: MarkovProcess) -> Parts:
    return Parts(process, leaning_policy(process))


@register(
    EnvironmentCard(
        name="frozen_lake",
        summary="Gymnasium's FrozenLake: reach the goal on ice without falling into a hole.",
        knob="slippery",
        source="Gymnasium, toy_text/frozen_lake.py",
        reference="best probability of success without a time limit: 14/17 on the slippery 4x4 map, 1 without slipping",
    )
)
def frozen_lake(*, slippery: bool = True, map_name: str = "4x4", horizon: int = 20) -> Parts:
    """FrozenLake-v1 with a horizon; Gymnasium's own time limit on the 4x4 map is 100 steps.

    Reference: with all the time it wants, the best policy of the slippery 4x4 map reaches the goal with probability
    14/17 = 0.823529; without slipping it takes 6 steps. With no step rewards, a horizon below 6 pays nothing.
    """
    name = checks.known_name("map_name", map_name, MAPS, of="environment 'frozen_lake'")
    env = FrozenLakeEnv(map_name=name, is_slippery=flag("slippery", slippery))
    return _with_policy(from_gymnasium(env, horizon=whole_number("horizon", horizon, least=1)))


@register(
    EnvironmentCard(
        name="cliff_walking",
        summary="Gymnasium's CliffWalking: walk beside a cliff to the goal, a point lost per step and 100 per fall.",
        knob="slippery",
        source="Sutton & Barto 2018, example 6.6; Gymnasium, toy_text/cliffwalking.py",
        reference="best return -13 without slipping (13 steps along the edge)",
    )
)
def cliff_walking(*, slippery: bool = False, horizon: int = 20) -> Parts:
    """CliffWalking-v1 with a horizon of 20 steps, in which the goal can be reached (13 steps) but need not be.

    Reference: up, eleven times right, down: return -13 (Sutton & Barto 2018, example 6.6, the optimal path).
    """
    env = CliffWalkingEnv(is_slippery=flag("slippery", slippery))
    return _with_policy(from_gymnasium(env, horizon=whole_number("horizon", horizon, least=1)))


@register(
    EnvironmentCard(
        name="taxi",
        summary="Gymnasium's Taxi: fetch the passenger and bring them to their destination.",
        knob="rainy",
        source="Dietterich 2000, J. Artif. Intell. Res. 13; Gymnasium, toy_text/taxi.py",
        reference="best return 7.93, the mean over the 300 start states, without rain",
    )
)
def taxi(*, rainy: bool = False, horizon: int = 20) -> Parts:
    """Taxi with a horizon of 20 steps, enough for the longest errand (18); Gymnasium's own time limit is 200.

    Four of the 500 states are entered both by ending and otherwise, so the process has 504 (see `from_gymnasium`).

    Reference: an errand of k steps is worth 20 - (k - 1); the mean over the 300 start states is 2379/300 = 7.93.
    """
    env = TaxiEnv(is_rainy=True) if flag("rainy", rainy) else TaxiEnv()
    return _with_policy(from_gymnasium(env, horizon=whole_number("horizon", horizon, least=1)))
