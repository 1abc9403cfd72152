"""Rules outside the linear family: against torch.optim and typed recursions, mixed, cut, resumed and diverged."""

import math

import pytest
import torch
from descent.engine import (
    Arms,
    Factors,
    Streams,
    adam,
    adamw,
    by_leaf,
    clipped,
    coupled,
    decayed,
    drop,
    every,
    heavy_ball,
    lion,
    muon,
    nesterov,
    normalised,
    repeat,
    replica_seeds,
    sgd,
    sign,
    stack,
    train,
)
from descent.engine.checkpoint import Checkpoint
from descent.engine.muon import newton_schulz, polar_factor
from descent.engine.normalised import as_rule
from descent.engine.probes import Watch
from descent.engine.rule import Elementwise, Mixed, elementwise, select
from descent.engine.surgery import Erase, Surgery
from descent.nets import MLP, CrossEntropy, Supervised

F32, F64 = torch.float32, torch.float64
SHAPES = {"a": (6, 4), "b": (5,), "c": (3, 7)}
STEPS = 50


class Rows:
    """A bowl with its own curvature in every number, noise from the streams: every row computes what it would alone."""

    def __init__(self, shapes=SHAPES, noise=0.3):
        self.shapes, self.noise = shapes, noise

    def gradient(self, params, streams, step):
        found = {}
        for place, (name, leaf) in enumerate(params.items()):
            noise = streams.normal(10 + place, step, tuple(leaf.shape[1:]))
            found[name] = leaf * torch.linspace(0.5, 2, leaf[0].numel(), dtype=leaf.dtype).view(leaf.shape[1:])
            found[name] += self.noise * noise
        return found


def started(rows, dtype=F64, shapes=SHAPES):
    streams = Streams(replica_seeds(3, rows), dtype)
    return {k: streams.normal(0, i, s) for i, (k, s) in enumerate(shapes.items())}, streams


def by_torch(make, start, streams, row, steps=STEPS, objective=None, before=lambda leaves: None):
    """Move one row by a torch optimiser with the gradients of the stack's own streams."""
    leaves = {k: v[row].clone().requires_grad_() for k, v in start.items()}
    optimizer, one = make(list(leaves.values())), streams.subset(slice(row, row + 1))
    for step in range(steps):
        found = (objective or Rows()).gradient({k: v.detach()[None] for k, v in leaves.items()}, one, step)
        for name, leaf in leaves.items():
            leaf.grad = found[name][0]
        before(list(leaves.values()))
        optimizer.step()
    return leaves


def apart(found, truth):
    """Return the distance relative to the length."""
    return float((found - truth.detach()).norm() / truth.detach().norm())


TORCH = {
    "Adam": (adam([1e-3, 3e-3], 0.9, 0.99), lambda p, lr: torch.optim.Adam(p, lr, betas=(0.9, 0.99)), None),
    "Adam with decay": (
        adam([1e-3, 3e-3], weight_decay=0.1), lambda p, lr: torch.optim.Adam(p, lr, weight_decay=0.1), None),
    "AdamW": (adamw([1e-3, 3e-3], decay=0.1), lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.1), None),
    "clipped": (
        clipped(heavy_ball([1e-2, 3e-2], 0.9), 1.0),
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
        lambda leaves: torch.nn.utils.clip_grad_norm_(leaves, 1.0),
    ),
    "linear": (nesterov([1e-2, 3e-2], 0.9), lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, nesterov=True), None),
}  # fmt: skip


@pytest.mark.parametrize(("dtype", "allowed"), [(F32, 1e-6), (F64, 1e-12)])
def test_each_rule_of_a_mixed_stack_moves_as_torch_moves_it_alone(dtype, allowed):
    mixed = stack(*(rule for rule, _, _ in TORCH.values()))
    assert isinstance(mixed, Mixed)
    start, streams = started(mixed.replicas, dtype)
    run = train(Rows(), start, mixed, STEPS, streams)
    for place, (name, (rule, make, before)) in enumerate(TORCH.items()):
        for i, lr in enumerate(rule.lr.tolist()):
            row = 2 * place + i
            alone = by_torch(
                lambda p, make=make, lr=lr: make(p, lr), start, streams, row, before=before or (lambda leaves: None)
            )
            for key, leaf in alone.items():
                assert apart(run.params[key][row], leaf) < allowed, name


def quintic(grad, ns_coefficients, ns_steps, eps):
    """The iteration of torch's Muon in the matrix's own precision, one matrix at a time."""
    a, b, c = ns_coefficients
    x = (grad.T if grad.size(0) > grad.size(1) else grad) / grad.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


@pytest.mark.parametrize(("dtype", "decay", "allowed"), [(F32, 0.0, 1e-6), (F64, 0.1, 1e-12)])
def test_muon_moves_as_torch_moves_it_alone(monkeypatch, dtype, decay, allowed):
    """Torch iterates in bfloat16, where rounding decides in the third digit; here in the type of the parameters."""
    monkeypatch.setattr("torch.optim._muon._zeropower_via_newtonschulz", quintic)
    shapes = {"a": (8, 4), "b": (3, 9)}
    start, streams = started(2, dtype, shapes)
    run = train(Rows(shapes), start, decayed(muon([0.002, 0.005]), decay), STEPS, streams)
    for row, lr in enumerate((0.002, 0.005)):
        alone = by_torch(lambda p, lr=lr: torch.optim.Muon(p, lr, decay), start, streams, row, objective=Rows(shapes))
        for name, leaf in alone.items():
            assert apart(run.params[name][row], leaf) < allowed


def test_muon_in_bfloat16_is_torch_as_it_comes():
    shapes = {"a": (8, 4), "b": (3, 9)}
    start, streams = started(1, F32, shapes)
    run = train(Rows(shapes), start, muon(0.02, dtype=torch.bfloat16), 5, streams)
    alone = by_torch(lambda p: torch.optim.Muon(p, 0.02, weight_decay=0), start, streams, 0, 5, Rows(shapes))
    for name, leaf in alone.items():
        assert apart(run.params[name][0], leaf) < 1e-3


def test_the_polar_factor_has_equal_singular_values_and_the_quintic_nearly():
    g = Streams(replica_seeds(0, 5), F64).normal(0, 0, (6, 4))
    exact, quick = polar_factor(g), newton_schulz(g)
    torch.testing.assert_close(exact.mT @ exact, torch.eye(4, dtype=F64).expand(5, 4, 4))
    values = torch.linalg.svdvals(quick)
    assert 0.6 < float(values.min()) < float(values.max()) < 1.25
    assert bool((polar_factor(g * 0) == 0).all())
    for one in range(5):
        torch.testing.assert_close(newton_schulz(g[one : one + 1])[0], quick[one], rtol=1e-12, atol=1e-12)


def typed(kind, gradients, lr, momentum, slow=0.99):
    """Recursions of one number."""
    x, m = 0.0, 0.0
    for g in gradients:
        if kind == "before":
            m = momentum * m + (1 - momentum) * g
            x -= lr * math.copysign(1, m)
        elif kind == "after":
            m = momentum * m + (1 - momentum) * math.copysign(1, g)
            x -= lr * m
        elif kind == "lookahead":
            m = momentum * m + (1 - momentum) * g
            x -= lr * math.copysign(1, momentum * m + (1 - momentum) * g)
        else:
            x -= lr * math.copysign(1, momentum * m + (1 - momentum) * g)
            m = slow * m + (1 - slow) * g
    return x


class Given:
    """Gradients that do not depend on the parameters."""

    def __init__(self, values):
        self.values = values

    def gradient(self, params, streams, step):
        return self.values[step].expand_as(params).clone()


@pytest.mark.parametrize("kind", ["before", "after", "lookahead", "lion"])
def test_signs_follow_their_recursions(kind):
    gradients = Streams(replica_seeds(5, 1), F64).normal(0, 0, (40, 1))[0]
    made = {
        "before": sign(0.1, 0.8),
        "after": sign(0.1, 0.8, "after"),
        "lookahead": sign(0.1, 0.8, lookahead=True),
        "lion": lion(0.1, 0.8, 0.95),
    }[kind]
    run = train(Given(gradients), torch.zeros(1, 1, dtype=F64), made, 40, Streams(replica_seeds(0, 1), F64))
    assert float(run.params) == pytest.approx(typed(kind, gradients[:, 0].tolist(), 0.1, 0.8, 0.95), abs=1e-12)


def test_a_normalised_step_has_length_lr_over_all_leaves_and_stands_still_at_zero():
    start, streams = started(4)
    one = train(Rows(), start, repeat(normalised(0.3), 4), 1, streams)
    moved = sum((one.params[k] - start[k]).flatten(1).square().sum(1) for k in start)
    torch.testing.assert_close(moved.sqrt(), torch.full((4,), 0.3, dtype=F64))
    still = train(Given(torch.zeros(3, 1, dtype=F64)), torch.ones(2, 1, dtype=F64), normalised([0.3, 0.1]), 3,
                  Streams(replica_seeds(0, 2), F64))  # fmt: skip
    assert bool((still.params == 1).all())
    assert bool((still.diverged_at < 0).all())


def test_the_linear_family_as_a_rule_differs_from_the_fast_path_by_rounding():
    hyper = stack(sgd(0.05), heavy_ball(0.01, 0.9, weight_decay=0.1), nesterov(0.01, 0.9))
    start, streams = started(3)
    schedule = drop([20, 60], 0.5, 0.7)
    fast = train(Rows(), start, hyper, 200, streams, schedule=schedule)
    slow = train(Rows(), start, as_rule(hyper), 200, streams, schedule=schedule)
    for name in start:
        torch.testing.assert_close(slow.params[name], fast.params[name], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(slow.velocity[name], fast.velocity[name], rtol=1e-12, atol=1e-12)


def test_linear_rows_of_a_mixed_stack_are_those_of_the_fast_path():
    start, streams = started(4)
    hyper = heavy_ball([0.01, 0.02], 0.9)
    run = train(Rows(), start, stack(sign([0.01, 0.02]), hyper), 30, streams)
    alone = train(Rows(), {k: v[2:] for k, v in start.items()}, hyper, 30, streams.subset(slice(2, 4)))
    for name in start:
        assert torch.equal(run.params[name][2:], alone.params[name])
        assert torch.equal(run.velocity[name][2:], alone.velocity[name])


def net(rows, batch_size=4):
    model = MLP((5, 6, 3), "tanh")
    x = torch.linspace(-1, 1, 100, dtype=F64).reshape(20, 5).sin()
    streams = Streams(replica_seeds(1, rows), F64)
    return Supervised(model, CrossEntropy(), x, torch.arange(20) % 3, batch_size), model.initial(streams), streams


def several(rows=3):
    matrices = by_leaf(muon(0.01), otherwise=adam(0.01), where=lambda name, shape: len(shape) > 1)
    return stack(*(repeat(r, rows) for r in (adam(0.01), matrices, sgd(0.1), lion(0.01), normalised(0.01, 0.9))))


def test_a_stack_of_any_rules_can_be_cut():
    problem, start, streams = net(15)
    whole = train(problem, start, several(), 25, streams)
    pieces = train(problem, start, several(), 25, streams, budget=20_000)
    for name in start:
        torch.testing.assert_close(pieces.params[name], whole.params[name], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(pieces.state[f"m/{name}"], whole.state[f"m/{name}"], rtol=1e-9, atol=1e-9)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(tmp_path):
    problem, start, streams = net(15)
    whole = train(problem, start, several(), 30, streams)

    def kill(step, steps):
        if step >= 18:
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "run.npz", 6)
    with pytest.raises(KeyboardInterrupt):
        train(problem, start, several(), 30, streams, checkpoint=checkpoint, progress=kill)
    again = train(problem, start, several(), 30, streams, checkpoint=checkpoint)
    for name in start:
        assert torch.equal(again.params[name], whole.params[name])
    assert again.state.keys() == whole.state.keys()
    assert all(torch.equal(again.state[key], slot) for key, slot in whole.state.items())
    assert again.state["age"].tolist() == [30] * 6 + [0] * 3 + [30] * 6  # linear rows have no age


def test_an_edited_rule_refuses_an_old_checkpoint(tmp_path, monkeypatch):
    def mine(text):
        path = tmp_path / "mine.py"
        path.write_text("from descent.engine import elementwise\n@elementwise(m=0.0)\n"
                        f"def Mine(g, x, s, h, age):\n    return -h.lr * {text}, {{'m': g}}\n")  # fmt: skip
        space = {"__name__": "mine"}
        exec(compile(path.read_text(), str(path), "exec"), space)
        return space["Mine"](lr=0.01)

    start, streams = started(1)
    checkpoint = Checkpoint(tmp_path / "run.npz", 2)
    train(Rows(), start, mine("g"), 4, streams, checkpoint=checkpoint)
    train(Rows(), start, mine("g"), 4, streams, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="other arguments or by other code"):
        train(Rows(), start, mine("(g + g)"), 4, streams, checkpoint=checkpoint)


def test_one_that_diverges_is_frozen_and_its_neighbours_do_not_notice():
    start, streams = started(3)
    clean = train(Rows(), start, adam([0.01, 0.01, 0.01]), 40, streams)

    class Explodes(Rows):
        def gradient(self, params, streams, step):
            found = super().gradient(params, streams, step)
            if step == 12:
                found["b"][1] = float("nan")
            return found

    run = train(Explodes(), start, adam([0.01, 0.01, 0.01]), 40, streams)
    assert run.diverged_at.tolist() == [-1, 12, -1]
    for name in start:
        for row in (0, 2):
            assert torch.equal(run.params[name][row], clean.params[name][row])
            assert torch.equal(run.state[f"v/{name}"][row], clean.state[f"v/{name}"][row])
    assert bool(run.params["b"][1].isnan().all())
    assert bool(run.params["a"][1].isfinite().all())
    assert run.state["age"].tolist() == [40, 13, 40]


def test_a_state_that_overflows_before_the_parameters_is_found():
    huge = torch.tensor([[1e30], [1.0]], dtype=F32)

    class Huge:
        def gradient(self, params, streams, step):
            return huge.clone()

    run = train(Huge(), torch.zeros(2, 1), adam([1e-3, 1e-3]), 5, Streams(replica_seeds(0, 2)))
    assert run.diverged_at.tolist() == [0, -1]


def test_schedules_move_lr_and_momentum_and_what_follows_it():
    start, streams = started(2)
    half = train(Rows(), start, adam([0.01, 0.02], [0.9, 0.5]), 20, streams, schedule=lambda step: Factors(0.5, 0.5))
    set_ = train(Rows(), start, adam([0.005, 0.01], [0.45, 0.25]), 20, streams)
    wrapped = train(Rows(), start, decayed(sign([0.01, 0.02], 0.8), 0.1), 20, streams, schedule=lambda s: Factors(0.5))
    plain = train(Rows(), start, decayed(sign([0.005, 0.01], 0.8), 0.1), 20, streams)
    for name in start:
        torch.testing.assert_close(half.params[name], set_.params[name], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(wrapped.params[name], plain.params[name], rtol=1e-12, atol=1e-12)


def test_decay_of_two_kinds_is_two_things():
    start, streams = started(2)
    inside = train(Rows(), start, coupled(sign([0.01, 0.02]), 0.5), 20, streams)
    beside = train(Rows(), start, decayed(sign([0.01, 0.02]), 0.5), 20, streams)
    assert any(float((inside.params[k] - beside.params[k]).abs().max()) > 1e-2 for k in start)
    first = train(Rows(noise=0.0), start, decayed(sign([0.01, 0.02]), 0.5), 1, streams)
    asked = start["a"] - torch.tensor([0.01, 0.02]).view(2, 1, 1) * (torch.sign(start["a"]) + 0.5 * start["a"])
    torch.testing.assert_close(first.params["a"], asked.to(F64), rtol=1e-7, atol=1e-7)


def test_probes_see_the_buffer_or_the_last_step():
    start, streams = started(2)
    probe = {"v": Watch(1, lambda step, params, velocity: velocity["b"].clone()), "x": every(1, lambda p: p["b"])}
    seen = train(Rows(), start, sign([0.01, 0.02], 0.8), 6, streams, probes=probe)
    torch.testing.assert_close(seen.records["v"].values[-1], seen.state["m/b"])
    bare = elementwise()(lambda g, x, s, h, age: -h.lr * g)(lr=[0.01, 0.02])
    last = train(Rows(), start, bare, 6, streams, probes=probe)
    torch.testing.assert_close(last.records["v"].values[1:], last.records["x"].values.diff(dim=0))


def test_surgery_works_on_a_named_buffer_and_refuses_a_rule_without():
    start, streams = started(2)
    operated = Surgery(Rows(), [Erase(slice(0, 1), lambda p: p["a"].flatten(1).norm(dim=1) < 1e9)])
    run = train(operated, start, sign([0.01, 0.02], 0.9), 1, streams)
    plain = train(Rows(), start, sign([0.01, 0.02], 0.9), 1, streams)
    assert torch.equal(run.params["a"], plain.params["a"])  # the buffer was empty anyway
    late = Surgery(Rows(), [Erase(slice(0, 1), lambda p: torch.ones(1, dtype=torch.bool))])
    later = train(late, start, sign([0.01, 0.02], 0.9), 5, streams, state=plain.state, begin=1)
    fresh = train(Rows(), start, sign([0.01, 0.02], 0.9), 5, streams, begin=1)
    torch.testing.assert_close(later.state["m/a"][0], fresh.state["m/a"][0])
    bare = elementwise()(lambda g, x, s, h, age: -h.lr * g)(lr=[0.01, 0.02])
    with pytest.raises(ValueError, match="names none"):
        train(operated, start, bare, 1, streams)


def test_arms_of_any_rules_go_on_where_they_ended():
    problem, _, streams = net(4)
    rule = stack(adam(0.01), sgd(0.1), sign(0.01, 0.9))
    arms = Arms.paired(rule, streams)
    whole = arms.run(problem, problem.model.initial, 20)
    part = arms.run(problem, problem.model.initial, 8).then(20)
    assert torch.equal(part.params["0.weight"], whole.params["0.weight"])
    forked = arms.run(problem, problem.model.initial, 8).fork(stack(adam(0.01), sign(0.01, 0.9)), [0, 2]).then(20)
    assert torch.equal(forked.params["0.weight"][:4], whole.params["0.weight"][:4])
    assert torch.equal(forked.params["0.weight"][4:], whole.params["0.weight"][8:])
    few, _, _ = whole.few(2, slice(1, 3))
    assert few.rule.lr.tolist() == [0.1, 0.01]


def test_rules_of_one_kind_join_and_others_stand_side_by_side():
    assert stack(adam(0.1), adam([0.2, 0.3])).lr.tolist() == pytest.approx([0.1, 0.2, 0.3])
    mixed = stack(adam(0.1), sign(0.2), sign(0.3, order="after"), sgd(0.4), heavy_ball(0.5, 0.9))
    assert isinstance(mixed, Mixed)
    assert [part.replicas for part in mixed.parts] == [1, 1, 1, 2]
    assert select(mixed, torch.tensor([4, 0, 3])).lr.tolist() == pytest.approx([0.5, 0.1, 0.4])
    assert repeat(mixed, 2).lr.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5])


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="lr must not be negative"):
        adam(-1.0)
    with pytest.raises(ValueError, match="momentum must be a finite number"):
        sign(0.1, float("nan"))
    with pytest.raises(ValueError, match="decoupled must be one number"):
        decayed(sign([0.1, 0.2]), [0.1, 0.2, 0.3])
    problem, start, streams = net(1)
    with pytest.raises(ValueError, match="use by_leaf"):
        train(problem, start, muon(0.1), 1, streams)
    with pytest.raises(ValueError, match="1 and 2 replicas"):
        by_leaf(muon(0.1), otherwise=adam([0.1, 0.2]), where=lambda name, shape: True)
    start, streams = started(1)
    with pytest.raises(ValueError, match="the state has slots"):
        train(Rows(), start, adam(0.1), 3, streams, state={"m/a": torch.zeros(1)})


def test_a_rule_made_from_a_function_moves_like_the_one_built_in():
    @elementwise(m=0.0)
    def mine(g, x, s, h, age):
        return -h.lr * torch.sign(h.momentum * s.m + (1 - h.momentum) * g), {"m": h.slow * s.m + (1 - h.slow) * g}

    rule = mine(lr=[0.01, 0.02], momentum=0.9, slow=0.99)
    assert isinstance(rule, Elementwise)
    start, streams = started(2)
    found, asked = (train(Rows(), start, r, 30, streams) for r in (rule, lion([0.01, 0.02])))
    for name in start:
        torch.testing.assert_close(found.params[name], asked.params[name], rtol=1e-12, atol=1e-12)
