"""The plan: every network in one task, tasks of the length that is wanted, the longest first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_accel.training.recipes import Recipe
from mlp_accel.tune.plan import SHORTEST_TASK, TASK_SECONDS, Network, Plan, Task, cost, launch_of

SHAPE = (60_000, 784, 10)


def networks(count: int, **settings: object) -> list[Network]:
    return [Network(replace(Recipe(), seed=seed, **settings)) for seed in range(count)]  # type: ignore[arg-type]


@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=6), workers=st.integers(1, 9), at_once=st.integers(1, 8))
@settings(max_examples=30)
def test_every_network_is_in_one_task(counts: list[int], workers: int, at_once: int) -> None:
    given_networks = [network for i, count in enumerate(counts) for network in networks(count, hidden=(8 * (i + 1),))]
    plan, found = Plan(given_networks, *SHAPE), list[Network]()
    while plan:
        task = plan.next(workers, at_once)
        assert task.networks
        plan.took(task, 0.01 * len(task.networks))
        found += task.networks
    assert Counter(found) == Counter(given_networks)
    assert plan.rest() == []


def test_tasks_take_seconds_once_the_workers_are_known() -> None:
    plan, speed = Plan(networks(10_000), *SHAPE), 1e12
    lengths = []
    while plan:
        task = plan.next(2, 2)
        seconds = sum(cost(network.recipe, *SHAPE) for network in task.networks) / speed
        plan.took(task, seconds)
        lengths.append(seconds)
    assert lengths[0] < TASK_SECONDS  # before anything is known
    assert all(length == pytest.approx(TASK_SECONDS, rel=0.2) for length in lengths[3:10])
    assert lengths[-1] <= 2 * SHORTEST_TASK  # all workers are busy to the last


def test_the_longest_come_first_and_those_of_a_launch_are_neighbours() -> None:
    mixed = [network for pair in zip(networks(20, hidden=(16,)), networks(20, hidden=(64,)), strict=True) for network in pair]
    plan, found = Plan(mixed, *SHAPE), list[Network]()
    while plan:
        found += plan.next().networks
    assert [network.recipe.hidden for network in found] == [(64,)] * 20 + [(16,)] * 20


def test_rates_decay_seeds_and_folds_share_a_launch_and_widths_and_batches_do_not() -> None:
    base = Recipe(optimizer="momentum")
    same = [
        base,
        replace(base, learning_rate=0.1),
        replace(base, weight_decay=0.1),
        replace(base, momentum=0.5),
        replace(base, seed=4),
    ]
    other = [replace(base, hidden=(8,)), replace(base, batch_size=8), replace(base, activation="relu"), replace(base, epochs=9)]
    assert len({launch_of(Network(recipe)) for recipe in same}) == 1
    assert len({launch_of(Network(recipe)) for recipe in (base, *other)}) == 1 + len(other)
    assert launch_of(Network(base, 0)) == launch_of(Network(base, 1))


def test_what_was_lost_comes_again_first_and_in_ever_smaller_parts() -> None:
    plan = Plan(networks(7), *SHAPE)
    lost = networks(8)
    plan.again(Task(lost, 1))
    assert plan.next() == Task(lost, 1)
    plan.again(Task(lost, 2))
    assert [plan.next(), plan.next(), plan.next()] == [Task(lost[:3], 2), Task(lost[3:6], 2), Task(lost[6:], 2)]
    plan.again(Task(lost[:3], 3))
    assert [plan.next(), plan.next(), plan.next()] == [Task([network], 3) for network in lost[:3]]
    assert len(plan) == 7


def test_a_first_task_that_compiled_does_not_make_the_others_short() -> None:
    plan = Plan(networks(10_000), *SHAPE)
    plan.took(plan.next(), 100.0)
    plan.took(plan.next(), 0.01)
    assert len(plan.next().networks) > 100
