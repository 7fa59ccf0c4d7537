"""Options given as lists of values: one choice in the settings stands for one per value."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

from testbed.sweep.choices import Choice

Check = Callable[[Choice], Any]


def expanded(item: Choice, check: Check, keep: tuple[str, ...] = ()) -> list[Choice]:
    """One choice per value of the options that are lists of values, each checked; the item itself where none is.

    A list that is a value itself is left as it is: `clip=(0.8, 1.28)` is one clip, `clip=((0.8, 1.2), (0.8, 1.28))` are
    two, and `cap=(2, 5)` are two caps. As few options as possible are taken for lists of values.

    Args:
        item: the choice.
        check: raises ValueError or TypeError on a choice without meaning.
        keep: options that are never expanded.

    Raises:
        ValueError: no reading passes the check. The sentence is that of the value which does not, where others do.
    """
    lists = [name for name, value in item.options.items() if isinstance(value, tuple) and value and name not in keep]
    refusals = []
    for count in range(len(lists) + 1):
        for names in combinations(lists, count):
            result, refused = [], []
            for values in product(*(item.options[name] for name in names)):
                one = item.with_options(**dict(zip(names, values, strict=True)))
                try:
                    check(one)
                    result.append(one)
                except (ValueError, TypeError) as error:
                    refused.append(error)
            if not refused:
                return result
            refusals.append((bool(result), refused[0]))
    # What some values of a list pass, the others fail for a reason of their own.
    raise next((error for passed, error in refusals if passed), refusals[0][1])
