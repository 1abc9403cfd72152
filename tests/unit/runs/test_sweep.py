"""A sweep gives the same results on any executor, in order, under a budget, and names what failed."""

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pytest
import torch
from descent.engine import rules
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Noisy, train
from descent.runs.sweep import SweepError, grid, sweep


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    momentum: float = 0.0
    seed: int = 0


def measure(config):
    torch.set_num_threads(1)
    hyper = rules.heavy_ball([config.lr] * 4, config.momentum)
    noisy = Noisy(lambda x: x, lambda x, streams, step: streams.normal(Purpose.NOISE, step))
    return train(noisy, torch.ones(4), hyper, 30, Streams(replica_seeds(config.seed, 4))).params.tolist()


def fail_on_two(x):
    if x == 2:
        raise ValueError("two")
    return x * x


CONFIGS = grid(Config(), lr=[0.1, 0.2], momentum=[0.0, 0.5, 0.9], seed=[0, 1])


def test_grid_runs_through_every_combination():
    assert len(CONFIGS) == 12
    assert CONFIGS[1] == Config(0.1, 0.0, 1)
    assert CONFIGS[-1] == Config(0.2, 0.9, 1)
    assert grid(Config()) == [Config()]


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_and_serial_agree(workers):
    serial = sweep(measure, CONFIGS)
    with ThreadPoolExecutor(workers) as pool:
        assert sweep(measure, CONFIGS, pool) == serial
        assert sweep(measure, CONFIGS, pool, footprint=lambda c: 10, budget=15) == serial


@pytest.mark.slow
def test_processes_agree():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert sweep(measure, CONFIGS[:4], pool) == sweep(measure, CONFIGS[:4])


def test_the_budget_bounds_what_runs_at_once():
    lock, running, most = threading.Lock(), [0], [0]

    def busy(size):
        with lock:
            running[0] += size
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.01)
        with lock:
            running[0] -= size
        return size

    with ThreadPoolExecutor(8) as pool:
        assert sweep(busy, [3] * 10 + [20], pool, footprint=lambda size: size, budget=7) == [3] * 10 + [20]
    assert most[0] == 20
    with ThreadPoolExecutor(8) as pool:
        most[0] = 0
        sweep(busy, [3] * 10, pool, footprint=lambda size: size, budget=7)
    assert most[0] == 6


@pytest.mark.parametrize("parallel", [False, True])
def test_a_failure_is_named_after_the_others_finished(parallel):
    said = []
    with (
        ThreadPoolExecutor(2) as pool,
        pytest.raises(SweepError, match=r"1 of 4 .*\n.*2: 2: ValueError: two") as caught,
    ):
        sweep(
            fail_on_two, range(4), pool if parallel else None, progress=lambda done, total: said.append((done, total))
        )
    assert caught.value.results == [0, 1, None, 9]
    assert list(caught.value.failures) == [2]
    assert said == [(1, 4), (2, 4), (3, 4), (4, 4)]
