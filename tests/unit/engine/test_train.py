"""The engine: exact paths, records, divergence, first passages, chunking, checkpoints that survive kill -9."""

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from descent.engine import rules
from descent.engine.checkpoint import Checkpoint, fingerprint
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import FirstPassage, Noisy, every, train
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from forked import forked

F64 = torch.float64


class Linear:
    """½ Σ curvature·x², with normal noise; curvature (R, d) or a number."""

    def __init__(self, curvature, noise=0.0):
        self.curvature, self.noise = curvature, noise

    def gradient(self, params, streams, step):
        return self.curvature * params + self.noise * streams.normal(Purpose.NOISE, step, params.shape[1:])


def streams_of(replicas, seed=0, dtype=F64):
    return Streams(replica_seeds(seed, replicas), dtype)


def digits(n=200, d=6, classes=3, dtype=torch.float32):
    g = np.random.default_rng(0)
    labels = g.integers(0, classes, size=n)
    x = g.normal(size=(classes, d))[labels] + g.normal(size=(n, d))
    return torch.from_numpy(x).to(dtype), torch.from_numpy(labels)


def same(a, b):
    return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))


def test_heavy_ball_on_a_quadratic_follows_its_recursion():
    lr, beta, a = 0.1, 0.7, 2.0
    run = train(Linear(a), torch.ones(1, 1, dtype=F64), rules.heavy_ball(lr, beta), 50, streams_of(1))
    x = [1.0, 1.0 - lr * a]
    for _ in range(49):
        x.append((1 + beta - lr * a) * x[-1] - beta * x[-2])
    assert run.params.item() == pytest.approx(x[-1], rel=1e-12)
    assert run.velocity.item() == pytest.approx((x[-2] - x[-1]) / lr, rel=1e-9)


def test_stationary_variance_of_the_noisy_quadratic():
    """lr·σ²(1+β) / ((1−β) a (2(1+β) − lr·a)), five standard errors."""
    lr, beta, a, replicas = 0.1, 0.5, 1.0, 20_000
    noisy = Noisy(lambda x: a * x, lambda x, streams, step: streams.normal(Purpose.NOISE, step))
    run = train(
        noisy, torch.zeros(replicas, dtype=F64), rules.heavy_ball([lr] * replicas, beta), 200, streams_of(replicas)
    )
    variance = lr * (1 + beta) / ((1 - beta) * a * (2 * (1 + beta) - lr * a))
    assert run.params.square().mean().item() == pytest.approx(variance, rel=5 * (2 / replicas) ** 0.5)


def test_a_path_depends_on_its_replica_alone():
    replicas, steps = 23, 60
    hyper = rules.heavy_ball(
        torch.linspace(0.01, 0.3, replicas, dtype=F64), torch.linspace(0, 0.95, replicas, dtype=F64)
    )
    streams, start = streams_of(replicas, dtype=torch.float32), torch.ones(replicas, 3)
    whole = train(Linear(1.0, 0.5), start, hyper, steps, streams).params
    order = torch.randperm(replicas, generator=torch.Generator().manual_seed(1))
    for rows in (slice(4, 5), slice(0, 7), order):
        part = train(Linear(1.0, 0.5), start[rows], hyper.subset(rows), steps, streams.subset(rows))
        assert torch.equal(part.params, whole[rows])


def test_start_is_left_alone_and_dictionaries_work():
    start = {"a": torch.ones(2, 3, dtype=F64), "b": torch.ones(2, dtype=F64)}

    class Both:
        def gradient(self, params, streams, step):
            return dict(params)

    run = train(Both(), start, rules.sgd([0.1, 0.2]), 10, streams_of(2))
    assert bool((start["a"] == 1).all())
    torch.testing.assert_close(run.params["b"], torch.tensor([0.9**10, 0.8**10], dtype=F64))
    torch.testing.assert_close(run.params["a"][:, 0], run.params["b"])


def test_records_come_before_the_step_and_at_the_end():
    seen = []

    class Spy:
        every = 4

        def __call__(self, step, params, velocity):
            seen.append((step, params.clone(), velocity.clone()))
            return {"x": params, "big": params[:, 0] > 0.5}

    run = train(Linear(1.0), torch.ones(2, 1, dtype=F64), rules.sgd([0.1, 0.1]), 10, streams_of(2), probes={"p": Spy()})
    assert [s for s, _, _ in seen] == run.records["p.x"].steps.tolist() == [0, 4, 8, 10]
    torch.testing.assert_close(run.records["p.x"].values[:, 0, 0], 0.9 ** torch.tensor([0, 4, 8, 10], dtype=F64))
    assert run.records["p.big"].values.dtype == torch.bool
    assert float(seen[0][2].abs().max()) == 0.0
    torch.testing.assert_close(seen[1][2][0, 0].item(), 0.9**3)


def test_records_do_not_change_a_path():
    hyper, start = rules.heavy_ball([0.1] * 5, 0.9), torch.ones(5, 2)
    plain = train(Linear(1.0, 1.0), start, hyper, 30, streams_of(5, dtype=torch.float32))
    probes = {"x": every(1, lambda x: x), "t": FirstPassage(lambda x: x[:, 0] < 0)}
    looked = train(Linear(1.0, 1.0), start, hyper, 30, streams_of(5, dtype=torch.float32), probes=probes)
    assert torch.equal(plain.params, looked.params)
    passed = (looked.records["x"].values[:, :, 0] < 0).int()
    first = torch.where(passed.any(0), passed.argmax(0), -1)
    assert torch.equal(looked.records["t"].values, first)


def test_first_passage_is_censored_and_can_stop_a_run():
    curvature = torch.tensor([[-1.0], [-0.5], [0.0]], dtype=F64)
    start, hyper = torch.ones(3, 1, dtype=F64), rules.sgd([0.1] * 3)
    out = FirstPassage(lambda x: x.abs()[:, 0] > 2.0, every=2, stop=True)
    run = train(Linear(curvature), start, hyper, 100, streams_of(3), probes={"t": out})
    assert run.records["t"].values.tolist() == [8, 16, -1]
    assert run.steps == 100
    run = train(Linear(curvature[:2]), start[:2], rules.sgd([0.1] * 2), 100, streams_of(2), probes={"t": out})
    assert run.steps == 16
    torch.testing.assert_close(run.params[0, 0].item(), 1.1**16)


def test_first_passages_of_several_levels():
    probe = FirstPassage(lambda x: x.abs() > torch.tensor([1.5, 2.0], dtype=F64), every=1)
    run = train(
        Linear(-1.0), torch.ones(2, 1, dtype=F64), rules.sgd([0.1, 0.2]), 30, streams_of(2), probes={"t": probe}
    )
    assert run.records["t"].values.tolist() == [[5, 8], [3, 4]]


@pytest.mark.parametrize("culprit", ["unstable", "nan", "inf"])
def test_divergence_is_recorded_and_neighbours_do_not_notice(culprit):
    replicas, steps = 9, 200

    class Trap(Linear):
        def __init__(self, bad):
            super().__init__(1.0, 0.5)
            self.bad = bad

        def gradient(self, params, streams, step):
            g = super().gradient(params, streams, step)
            if self.bad is not None and step == 20 and culprit != "unstable":
                g[self.bad] = float(culprit)
            if self.bad is not None and culprit == "unstable":
                g[self.bad] *= 60.0
            return g

    hyper, start = rules.heavy_ball([0.1] * replicas, 0.9), torch.ones(replicas, 2)
    probes = {"x": every(7, lambda x: x)}
    quiet = train(Trap(None), start, hyper, steps, streams_of(replicas, dtype=torch.float32), probes=probes)
    run = train(Trap(4), start, hyper, steps, streams_of(replicas, dtype=torch.float32), probes=probes)
    others = [r for r in range(replicas) if r != 4]
    assert torch.equal(run.params[others], quiet.params[others])
    assert torch.equal(run.records["x"].values[:, others], quiet.records["x"].values[:, others])
    at = int(run.diverged_at[4])
    assert at == 20 if culprit != "unstable" else 5 < at < 100
    assert run.diverged_at[others].tolist() == [-1] * 8
    assert not float(run.params[4].norm()) <= 1e6
    late = run.records["x"].steps > at
    assert all(same(value, run.params[4]) for value in run.records["x"].values[late, 4])
    assert bool(run.records["x"].values[~late, 4].isfinite().all())


def test_divergence_is_found_at_the_first_step_beyond_the_limit():
    run = train(Linear(-1.0), torch.ones(1, 1, dtype=F64), rules.sgd(1.0), 100, streams_of(1), limit=1000.0)
    assert int(run.diverged_at) == 9  # the update of step 9 leads to 2¹⁰ > 1000
    assert run.params.item() == 2.0**10


def test_a_run_in_two_parts_is_the_run():
    hyper, start = rules.dampened([0.1] * 3, 0.9, 0.5), torch.ones(3, 2)
    whole = train(Linear(1.0, 1.0), start, hyper, 50, streams_of(3, dtype=torch.float32))
    first = train(Linear(1.0, 1.0), start, hyper, 20, streams_of(3, dtype=torch.float32))
    second = train(
        Linear(1.0, 1.0), first.params, hyper, 50, streams_of(3, dtype=torch.float32), velocity=first.velocity, begin=20
    )
    assert torch.equal(second.params, whole.params)


def test_batch_sizes_rules_and_rates_as_one_program():
    """A mixed grid gives, replica by replica, what each replica gives alone; also cut into small chunks.

    But for arithmetic: which kernel multiplies matrices depends on how many there are.
    """
    x, y = digits()
    sizes = [4, 4, 4, 16, 16, 5, 5, 5]
    hyper = rules.stack(
        rules.sgd([0.1, 0.2, 0.3]), rules.nesterov([0.1, 0.2], 0.9), rules.ema([0.1, 0.2, 0.3], [0.5, 0.9, 0.95])
    )
    streams = Streams(replica_seeds(0, 8))
    model = MLP((6, 5, 3))
    start = model.initial(streams)
    whole = train(Supervised(model, CrossEntropy(), x, y, sizes), start, hyper, 40, streams)
    small = train(Supervised(model, CrossEntropy(), x, y, sizes), start, hyper, 40, streams, budget=1)
    for name, leaf in whole.params.items():
        torch.testing.assert_close(leaf, small.params[name], rtol=1e-4, atol=1e-6)
    for r, size in enumerate(sizes):
        one = slice(r, r + 1)
        alone = train(
            Supervised(model, CrossEntropy(), x, y, size),
            {name: leaf[one] for name, leaf in start.items()},
            hyper.subset(one),
            40,
            streams.subset(one),
        )
        for name, leaf in whole.params.items():
            torch.testing.assert_close(leaf[one], alone.params[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement", "shuffled_epochs", "full"])
def test_sampling(sampling):
    x, y = digits(n=30)
    batch_size = None if sampling == "full" else 10
    objective = Supervised(MLP((6, 3)), CrossEntropy(), x, y, batch_size, sampling)
    streams = Streams(replica_seeds(0, 4))
    epoch = torch.cat([objective.indices(streams, step) for step in range(3)], dim=1)
    distinct = [len(set(row.tolist())) for row in objective.indices(streams, 1)]
    if sampling == "with_replacement":
        assert min(distinct) < 10
    else:
        assert distinct == [30 if sampling == "full" else 10] * 4
    if sampling == "shuffled_epochs":
        assert torch.equal(epoch.sort(dim=1).values, torch.arange(30).expand(4, 30))
    gradient = objective.gradient(MLP((6, 3)).initial(streams), streams, 1)
    assert gradient["0.weight"].shape == (4, 3, 6)


def test_batch_gradients_average_to_the_full_gradient():
    x, y = digits(dtype=F64)
    streams = Streams(torch.arange(4000), F64)
    model = MLP((6, 3))
    params = {
        name: leaf[:1].expand(4000, *leaf.shape[1:]).contiguous() for name, leaf in model.initial(streams).items()
    }
    full = Supervised(model, CrossEntropy(), x, y, sampling="full").gradient(params, streams, 0)["0.weight"][0]
    for sampling in ("with_replacement", "without_replacement"):
        g = Supervised(model, CrossEntropy(), x, y, 5, sampling).gradient(params, streams, 0)["0.weight"]
        assert bool(((g.mean(0) - full).abs() < 5 * g.std(0) / 4000**0.5).all())


def test_mistakes_are_named():
    x, y = digits(n=30)
    with pytest.raises(ValueError, match="same number of replicas"):
        train(Linear(1.0), torch.ones(3, 1), rules.sgd([0.1] * 2), 5, streams_of(3))
    with pytest.raises(ValueError, match="the gradient is"):
        train(
            Linear(torch.ones(2, 2, 1)), torch.ones(2, 1), rules.sgd([0.1] * 2), 5, streams_of(2, dtype=torch.float32)
        )
    probes = {"p": every(1, lambda x: x.sum())}
    with pytest.raises(ValueError, match="replicas first"):
        train(Linear(1.0), torch.ones(2, 1), rules.sgd([0.1] * 2), 5, streams_of(2), probes=probes)
    with pytest.raises(ValueError, match="at least 1"):
        train(
            Linear(1.0), torch.ones(2, 1), rules.sgd([0.1] * 2), 5, streams_of(2), probes={"p": every(0, lambda x: x)}
        )
    for arguments in ({"batch_size": 31}, {"batch_size": None}, {"batch_size": 3, "sampling": "random"}):
        with pytest.raises(ValueError, match=r"batch|sampling"):
            Supervised(MLP((6, 3)), CrossEntropy(), x, y, **arguments)
    with pytest.raises(ValueError, match="4 entries for 3 replicas"):
        Supervised(MLP((6, 3)), CrossEntropy(), x, y, [1, 2, 2, 1]).chunks(3, 2**30)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_follows_the_same_path():
    x, y = digits()
    runs = []
    for device in ("cpu", "cuda"):
        streams = Streams(replica_seeds(0, 4, device))
        objective = Supervised(MLP((6, 5, 3)), CrossEntropy(), x.to(device), y.to(device), 8)
        hyper = rules.heavy_ball([0.05, 0.1, 0.15, 0.2], 0.9)
        schedule = rules.per_arm(rules.constant(), rules.drop(10), replicas=2)
        runs.append(train(objective, MLP((6, 5, 3)).initial(streams), hyper, 20, streams, schedule=schedule))
    for name, leaf in runs[0].params.items():
        torch.testing.assert_close(runs[1].params[name].cpu(), leaf, rtol=1e-3, atol=1e-4)


# Checkpoints


def checkpointed(path, steps=60):
    probes = {"x": every(7, lambda x: x), "t": FirstPassage(lambda x: x[:, 0].abs() > 3.0)}
    lrs = [0.1, 0.1, 5.0, 0.2]  # the third diverges
    return train(
        Linear(1.0, 1.0),
        torch.ones(4, 2),
        rules.heavy_ball(lrs, 0.9),
        steps,
        streams_of(4, dtype=torch.float32),
        probes=probes,
        schedule=rules.drop(31),
        checkpoint=None if path is None else Checkpoint(path, every=10),
    )


def assert_equal_runs(a, b):
    assert same(a.params, b.params)
    assert same(a.velocity, b.velocity)
    assert torch.equal(a.diverged_at, b.diverged_at)
    assert a.steps == b.steps
    for name, series in a.records.items():
        assert torch.equal(series.steps, b.records[name].steps)
        assert same(series.values, b.records[name].values)


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [10, 20, 40])
def test_an_interrupted_run_resumes_in_the_same_numbers(tmp_path, at):
    plain = checkpointed(None)
    assert int(plain.diverged_at[2]) > 0
    path = tmp_path / "run.npz"

    class Interrupted(Checkpoint):
        def save(self, mark, meta, tensors):
            super().save(mark, meta, tensors)
            if meta["step"] == at:
                raise Stop

    def go(checkpoint):
        probes = {"x": every(7, lambda x: x), "t": FirstPassage(lambda x: x[:, 0].abs() > 3.0)}
        return train(
            Linear(1.0, 1.0),
            torch.ones(4, 2),
            rules.heavy_ball([0.1, 0.1, 5.0, 0.2], 0.9),
            60,
            streams_of(4, dtype=torch.float32),
            probes=probes,
            schedule=rules.drop(31),
            checkpoint=checkpoint,
        )

    with pytest.raises(Stop):
        go(Interrupted(path, every=10))
    resumed = go(Checkpoint(path, every=10))
    assert_equal_runs(resumed, plain)
    again = go(Checkpoint(path, every=10))  # a finished run is not run again
    assert_equal_runs(again, plain)


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    checkpointed(path)
    with pytest.raises(ValueError, match="other arguments"):
        checkpointed(path, steps=61)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        checkpointed(path)


@dataclass(frozen=True, eq=False)
class Valley:
    """A quadratic with data, the objective of the runs below."""

    depth: float
    data: torch.Tensor

    def gradient(self, params, streams, step):
        return self.depth * params + self.data.mean()


class Gorge(Valley):
    pass


class Above:
    """A condition that is neither a dataclass nor a function."""

    def __init__(self, height):
        self.height, self._asked = height, []

    def __call__(self, params):
        self._asked.append(len(params))
        return params[:, 0].abs() > self.height


def probes(scale=2.0, period=3, height=3.0, stop=False):
    return {"x": every(period, lambda x: scale * x), "t": FirstPassage(Above(height), stop=stop)}


def given(**changes):
    """Return what a run is given, made anew at every call, with some of it changed."""
    return {
        "objective": Valley(1.0, torch.arange(10.0)),
        "schedule": rules.drop(7),
        "limit": 1e6,
        "check": 1,
        "streams": streams_of(2, dtype=torch.float32),
        "velocity": None,
        "label": "",
        "probes": probes(),
    } | changes


def run_given(path, objective, streams, label, **options):
    hyper, keep = rules.heavy_ball([0.1, 0.2], 0.9), Checkpoint(path, every=5, label=label)
    return train(objective, torch.ones(2, 2), hyper, 12, streams, checkpoint=keep, **options)


CHANGES = {
    "a field": lambda: {"objective": Valley(1.5, torch.arange(10.0))},
    "data": lambda: {"objective": Valley(1.0, torch.arange(1.0, 11.0))},
    "a class": lambda: {"objective": Gorge(1.0, torch.arange(10.0))},
    "an attribute": lambda: {"probes": probes(height=4.0)},
    "a closure": lambda: {"probes": probes(scale=2.5)},
    "a period": lambda: {"probes": probes(period=4)},
    "when to stop": lambda: {"probes": probes(stop=True)},
    "a schedule": lambda: {"schedule": rules.drop(8)},
    "no schedule": lambda: {"schedule": None},
    "the limit": lambda: {"limit": 10.0},
    "looks": lambda: {"check": 2},
    "precision of noise": lambda: {"streams": streams_of(2)},
    "a buffer": lambda: {"velocity": torch.zeros(2, 2)},
    "the label": lambda: {"label": "version 2"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_knows_what_its_run_was_given(tmp_path, change):
    first = run_given(tmp_path / "run.npz", **given())
    assert_equal_runs(run_given(tmp_path / "run.npz", **given()), first)  # made anew it is the same
    with pytest.raises(ValueError, match=r"other arguments.*delete it to start over"):
        run_given(tmp_path / "run.npz", **given(**CHANGES[change]()))


def test_a_tensor_is_known_by_its_numbers_however_they_lie_in_memory():
    columns = torch.tensor([[1.0, 2.0]], dtype=torch.float64).unbind(1)  # one number each, two apart
    assert fingerprint(columns[0]) == fingerprint(torch.tensor([1.0], dtype=torch.float64))
    assert fingerprint(columns[0]) != fingerprint(columns[1])
    rows = torch.arange(6.0).view(2, 3)
    assert fingerprint(rows.mT) == fingerprint(rows.mT.contiguous()) != fingerprint(rows)


def test_what_a_fingerprint_tells():
    def itself():
        return itself

    assert fingerprint(itself) == fingerprint(itself)
    assert fingerprint({"b", "a", 1}) == fingerprint({1, "a", "b"})
    assert fingerprint(["a;str:'b'"]) != fingerprint(["a", "b"]) != fingerprint([["a"], "b"])
    assert fingerprint(torch.tensor([1.0])) != fingerprint(torch.tensor([1.0], dtype=torch.bfloat16))
    large = torch.zeros(1000, 50)
    spot = large.clone()
    spot[1, 1] = 1.0
    assert fingerprint(large) != fingerprint(spot)
    assert fingerprint(large, most=100) == fingerprint(spot, most=100) != fingerprint(large + 1, most=100)
    assert fingerprint(large, most=100) != fingerprint(large[:999], most=100)


class Slow(Linear):
    """A gradient that takes its time."""

    def gradient(self, params, streams, step):
        time.sleep(0.0005)
        return super().gradient(params, streams, step)


def long_run(path, out):
    """Make a run, kept at `path` if that is given, and write all that came of it."""
    hyper, streams = rules.heavy_ball([0.1, 0.05, 6.0, 0.2, 0.3], 0.9), streams_of(5, dtype=torch.float32)
    probes = {"x": every(13, lambda x: x), "t": FirstPassage(lambda x: x[:, 0] > 2.5, every=3)}
    keep = Checkpoint(path, every=50) if path else None
    run = train(Slow(1.0, 1.0), torch.ones(5, 3), hyper, 1500, streams, probes=probes, checkpoint=keep)
    x, t = run.records["x"], run.records["t"]
    np.savez(out, x=run.params, v=run.velocity, d=run.diverged_at, s=x.steps, r=x.values, t=t.values)


@pytest.mark.slow
def test_kill_dash_nine_and_start_again(tmp_path):
    path = tmp_path / "run.npz"

    def step_on_disk():
        with np.load(path) as file:
            return json.loads(file[""].tobytes())["step"]

    reached = 0
    for _ in range(2):
        child = forked(long_run, path, tmp_path / "resumed.npz")
        limit = time.monotonic() + 60
        while (not path.exists() or step_on_disk() < reached + 200) and time.monotonic() < limit:
            time.sleep(0.005)
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not Path(tmp_path / "resumed.npz").exists()
        assert step_on_disk() >= reached + 200
        reached = step_on_disk()
    last = forked(long_run, path, tmp_path / "resumed.npz")
    long_run(None, tmp_path / "plain.npz")
    last.join(60)
    assert last.exitcode == 0
    with np.load(tmp_path / "plain.npz") as plain, np.load(tmp_path / "resumed.npz") as resumed:
        for name in plain.files:
            assert plain[name].tobytes() == resumed[name].tobytes(), name
