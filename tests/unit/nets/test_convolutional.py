"""Stacks of convolutional networks against their modules, torchvision's network, and one another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.nets.convolutional import CNN, ResNet, parameter_count
from descent.nets.dense import CrossEntropy, Stacked, saved_bytes
from descent.nets.supervised import Supervised
from torch import nn

F64 = torch.float64
NORMS = ("group", "batch", "none")


def small(kind: str, norm: str, **changes):
    if kind == "cnn":
        return CNN(widths=(8, 16), dense=(12,), size=8, norm=norm, groups=4, **changes)
    return ResNet(blocks=(1, 2), widths=(8, 16), norm=norm, groups=4, **changes)


def pictures(count: int, side: int = 8, channels: int = 3, dtype=F64):
    draws = Streams(torch.tensor([5]), dtype).normal(Purpose.DATA, 0, (count, channels, side, side))
    return draws[0], torch.arange(count) % 10


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_forward_and_gradient_equal_the_module(kind, norm, replicas):
    net, streams = small(kind, norm), Streams(replica_seeds(0, replicas), F64)
    objective = Supervised(net, CrossEntropy(), *pictures(20), 6)
    params = net.initial(streams)
    inputs, targets = objective.batch(streams, 3)
    outputs, gradient = net.forward(params, inputs), objective.gradient(params, streams, 3)
    for r in range(replicas):
        module = net.module().double()
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        alone = module(inputs[r])
        nn.functional.cross_entropy(alone, targets[r]).backward()
        torch.testing.assert_close(outputs[r], alone.detach(), rtol=1e-12, atol=1e-12)
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(gradient[name][r], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels_last", [True, False])
def test_in_single_precision_most_replicas_agree_closely(channels_last):
    """Most, not all: a gate whose input is within rounding of zero may flip."""
    net, streams = small("resnet", "group", channels_last=channels_last), Streams(replica_seeds(0, 5))
    params = net.initial(streams)
    inputs, targets = Supervised(net, CrossEntropy(), *pictures(20, dtype=torch.float32), 6).batch(streams, 0)
    gradient = Supervised(net, CrossEntropy(), *pictures(20, dtype=torch.float32), 6).gradient(params, streams, 0)
    errors = []
    for r in range(5):
        module = net.module()
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        nn.functional.cross_entropy(module(inputs[r]), targets[r]).backward()
        found = torch.cat([leaf[r].flatten() for leaf in gradient.values()])
        wanted = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
        errors.append(float((found - wanted).norm() / wanted.norm()))
    assert sorted(errors)[2] < 5e-6


def test_resnet_18_is_torchvisions_with_the_small_stem():
    resnet = pytest.importorskip("torchvision.models.resnet")
    net = ResNet(blocks=(2, 2, 2, 2), widths=(64, 128, 256, 512), norm="batch")
    params = net.initial(Streams(replica_seeds(0, 2), F64))
    assert parameter_count(params) == 11_173_962
    images, _ = pictures(6)
    outputs = net.forward(params, images.view(2, 3, 3, 8, 8))
    with torch.device("meta"):
        module = resnet.ResNet(resnet.BasicBlock, [2, 2, 2, 2], num_classes=10)
        module.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    module = module.double().to_empty(device="cpu")
    module.maxpool = nn.Identity()
    for r in range(2):
        missing, unexpected = module.load_state_dict({k: leaf[r] for k, leaf in params.items()}, strict=False)
        assert not unexpected
        assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in missing)
        with torch.no_grad():
            alone = module(images.view(2, 3, 3, 8, 8)[r])
        torch.testing.assert_close(outputs[r], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (CNN(), 136_874),
        (ResNet(), 78_042),
        (ResNet(norm="batch"), 78_042),
        (ResNet(widths=(32, 64, 128)), 308_650),
        (ResNet(widths=(64, 128, 256)), 1_227_594),
        (ResNet(blocks=(3, 3, 3)), 272_474),
    ],
)
def test_parameters_are_as_many_as_counted(net, count):
    assert parameter_count(net.initial(Streams(replica_seeds(0, 1)))) == count
    assert sum(p.numel() for p in net.module().parameters()) == count


@pytest.mark.parametrize(
    ("net", "megabytes"),
    [(ResNet(), 0.65), (ResNet(norm="none"), 0.31), (ResNet(blocks=(3, 3, 3)), 1.57), (CNN(), 0.135)],
)
def test_footprint_counts_what_autograd_keeps(net, megabytes):
    streams = Streams(replica_seeds(0, 1))
    params = {k: leaf.requires_grad_() for k, leaf in net.initial(streams).items()}
    kept = [sum(saved_bytes(lambda: net.forward(params, torch.zeros(1, b, 3, 32, 32)))) for b in (2, 6)]  # noqa: B023
    assert (kept[1] - kept[0]) / 4e6 == pytest.approx(megabytes, abs=0.005)
    parameters = 4 * parameter_count(params)
    found = net.footprint(torch.zeros(50, 3, 32, 32), 6)
    assert 2 * parameters + kept[1] <= found <= 4 * parameters + 3 * kept[1]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_a_replica_does_not_depend_on_its_stack(kind, norm):
    """But for arithmetic: how many there are may choose the kernel."""
    net, streams = small(kind, norm), Streams(replica_seeds(0, 6))
    objective = Supervised(net, CrossEntropy(), *pictures(20, dtype=torch.float32), 5)
    params = net.initial(streams)
    whole = objective.gradient(params, streams, 0)
    for rows in ([0, 1], [3, 4, 5], [5, 2, 0, 3]):
        part = {name: leaf[rows] for name, leaf in params.items()}
        found = objective.gradient(part, streams.subset(torch.tensor(rows)), 0)
        for name in found:
            torch.testing.assert_close(found[name], whole[name][rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampling", [{"batch_size": 30}, {"sampling": "full"}])
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_a_batch_that_falls_out_of_cache_is_taken_in_parts(kind, sampling, monkeypatch):
    """The parts are of 7 and 8 images here, so that a mean of their means would not do."""
    streams, seen = Streams(replica_seeds(0, 2), F64), []
    net = small(kind, "group")
    whole = Supervised(net, CrossEntropy(), *pictures(37), **sampling)
    params = net.initial(streams)
    expected = whole.gradient(params, streams, 0)
    kept = net.footprint(whole.inputs, 2) - net.footprint(whole.inputs, 1)
    part = replace(whole, model=replace(net, working_set=8 * kept))
    watch_batches(monkeypatch, type(net), seen)
    found = part.gradient(params, streams, 0)
    assert len(seen) == -(-sum(seen) // 8) > 1
    for name, leaf in found.items():
        torch.testing.assert_close(leaf, expected[name], rtol=1e-10, atol=1e-12)


def test_a_batch_norm_sees_its_whole_batch(monkeypatch):
    streams, seen = Streams(replica_seeds(0, 2), F64), []
    net = replace(small("resnet", "batch"), working_set=1)
    watch_batches(monkeypatch, type(net), seen)
    Supervised(net, CrossEntropy(), *pictures(20), 6).gradient(net.initial(streams), streams, 0)
    assert seen == [6]


def watch_batches(monkeypatch, kind, seen):
    def watched(net, params, inputs):
        if inputs.device.type != "meta":  # where bytes are counted
            seen.append(inputs.shape[1])
        return forward(net, params, inputs)

    forward = kind.forward
    monkeypatch.setattr(kind, "forward", watched)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_an_infinite_replica_leaves_its_neighbours_alone(kind, norm):
    net, streams = small(kind, norm), Streams(replica_seeds(0, 4))
    objective = Supervised(net, CrossEntropy(), *pictures(20, dtype=torch.float32), 5)
    params = net.initial(streams)
    sound = objective.gradient(params, streams, 0)
    for leaf in params.values():
        leaf[1] = torch.inf
    found = objective.gradient(params, streams, 0)
    assert not any(found[name][1].isfinite().all() for name in ("conv1.weight", "conv2.weight") if name in found)
    assert all(torch.equal(found[name][[0, 2, 3]], sound[name][[0, 2, 3]]) for name in found)


@pytest.mark.parametrize("norm", NORMS)
def test_training_does_not_depend_on_the_chunks_and_outlives_a_divergence(norm):
    net, streams = small("resnet", norm), Streams(replica_seeds(0, 4))
    objective = Supervised(net, CrossEntropy(), *pictures(40, dtype=torch.float32), 8)
    start = net.initial(streams)
    rates = [0.05, 0.02, 1e9, 0.05]
    whole = train(objective, start, heavy_ball(rates, 0.9), 12, streams)
    budget = 5 * net.footprint(objective.inputs, 8) // 2
    assert [rows.stop for rows in objective.chunks(4, budget)] == [2, 4]
    parts = train(objective, start, heavy_ball(rates, 0.9), 12, streams, budget=budget)
    assert whole.diverged_at.tolist()[:2] == [-1, -1]
    assert int(whole.diverged_at[2]) >= 0
    calm = train(objective, start, heavy_ball([0.05, 0.02, 0.01, 0.05], 0.9), 12, streams)
    for name, leaf in whole.params.items():
        torch.testing.assert_close(leaf[[0, 1, 3]], parts.params[name][[0, 1, 3]], rtol=1e-2, atol=1e-4)
        assert torch.equal(leaf[[0, 1, 3]], calm.params[name][[0, 1, 3]])
    assert parts.diverged_at.tolist() == whole.diverged_at.tolist()


@pytest.mark.parametrize("norm", NORMS)
def test_a_small_set_is_learned(norm):
    net, streams = small("resnet", norm), Streams(replica_seeds(0, 2))
    objective = Supervised(net, CrossEntropy(), *pictures(40, dtype=torch.float32), 20, "shuffled_epochs")
    start = net.initial(streams)
    run = train(objective, start, heavy_ball([0.01] * 2, 0.9), 100, streams)
    final = net.settled(run.params, objective.inputs, 20)
    assert (run.diverged_at < 0).all()
    assert (objective.value(final) < 0.5 * objective.value(net.settled(start, objective.inputs, 20))).all()
    assert (objective.accuracy(final) > 0.6).all()


def test_settled_statistics_are_torchs_cumulative_ones():
    net, streams = small("resnet", "batch"), Streams(replica_seeds(0, 3), F64)
    images, _ = pictures(30)
    params = net.initial(streams)
    assert net.couples(params)
    settled = net.settled(params, images, batch_size=10)
    assert not net.couples(settled)
    assert {name for name in settled if name not in params} == {
        name for name in net.module(settled=True).state_dict() if "running" in name
    }
    shown, _ = pictures(7, side=8)
    outputs = net.forward(settled, shown.expand(3, *shown.shape))
    for r in range(3):
        module = net.module(settled=True).double()
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()}, strict=False)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
        with torch.no_grad():
            for batch in images.split(10):
                module(batch)
            for name, buffer in module.named_buffers():
                if "running" in name:
                    torch.testing.assert_close(settled[name][r], buffer, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(outputs[r], module.eval()(shown), rtol=1e-12, atol=1e-12)
    alone = net.forward(settled, shown[:1].expand(3, 1, 3, 8, 8))
    torch.testing.assert_close(alone, outputs[:, :1], rtol=1e-12, atol=1e-12)


def test_settling_depends_on_no_neighbour_and_changes_nothing_without_batch_norm():
    net, streams = small("cnn", "batch"), Streams(replica_seeds(0, 3))
    images, _ = pictures(25, dtype=torch.float32)
    params = net.initial(streams)
    whole = net.settled(params, images, 10)
    part = net.settled({name: leaf[1:2] for name, leaf in params.items()}, images, 10)
    assert all(torch.equal(leaf, whole[name][1:2]) for name, leaf in part.items())
    other = small("cnn", "group")
    assert other.settled(params, images) is params


def test_values_are_the_same_in_one_part_and_in_several():
    net, streams = ResNet(blocks=(1, 1), widths=(8, 16)), Streams(replica_seeds(0, 2), F64)
    images, labels = pictures(700, side=16)
    objective = Supervised(net, CrossEntropy(), images, labels, 10)
    assert net.footprint(images, 2 * 700) > 256 << 20  # so that the second value is taken in parts
    params = net.initial(streams)
    once, twice = objective.value(params), objective.value(params, images.repeat(2, 1, 1, 1), labels.repeat(2))
    torch.testing.assert_close(once, twice, rtol=1e-12, atol=0)
    outputs = net.forward(params, images.expand(2, *images.shape))
    assert objective.accuracy(params).tolist() == (outputs.argmax(-1) == labels).double().mean(1).tolist()


def test_batch_norm_is_evaluated_on_the_whole_until_it_is_settled():
    net, streams = ResNet(blocks=(1,), widths=(8,), norm="batch"), Streams(replica_seeds(0, 1))
    images, labels = pictures(3600, side=16, dtype=torch.float32)
    objective = Supervised(net, CrossEntropy(), images, labels, 10)
    assert net.footprint(images, 3600) > 256 << 20
    params = net.initial(streams)
    outputs = net.forward(params, images.unsqueeze(0))
    torch.testing.assert_close(objective.value(params), CrossEntropy()(outputs, labels[None]).mean(1))


def test_hessian_products_equal_the_modules():
    net, streams = small("resnet", "group"), Streams(replica_seeds(0, 2), F64)
    images, labels = pictures(6)
    params = {k: leaf.requires_grad_() for k, leaf in net.initial(streams).items()}
    loss = CrossEntropy()(net.forward(params, images.expand(2, *images.shape)), labels.expand(2, 6)).mean(1).sum()
    slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    along = [leaf.detach().cos() for leaf in params.values()]
    product = torch.autograd.grad(sum((s * v).sum() for s, v in zip(slopes, along, strict=True)), list(params.values()))
    module = net.module().double()
    module.load_state_dict({name: leaf[1].detach() for name, leaf in params.items()})
    slopes = torch.autograd.grad(
        nn.functional.cross_entropy(module(images), labels), list(module.parameters()), create_graph=True
    )
    alone = torch.autograd.grad(
        sum((s * v[1]).sum() for s, v in zip(slopes, along, strict=True)), list(module.parameters())
    )
    for a, b in zip(product, alone, strict=True):
        torch.testing.assert_close(a[1], b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("net", [CNN(), CNN(norm="group"), ResNet(norm="batch")])
def test_initial_values_are_torchs(net):
    streams = Streams(replica_seeds(0, 3))
    params = net.initial(streams)
    wanted = Stacked(net.module()).initial(streams) if net.norm != "batch" else params
    assert list(params) == [name for name, _ in net.module().named_parameters()]
    assert all(torch.equal(leaf, wanted[name]) for name, leaf in params.items())
    part = net.initial(streams.subset(slice(1, 2)))
    assert all(torch.equal(part[name], leaf[1:2]) for name, leaf in params.items())


def test_without_a_norm_the_signal_survives_the_depth():
    net = ResNet(blocks=(2, 2, 2, 2), widths=(16, 32, 64, 128), norm="none")
    streams = Streams(replica_seeds(0, 4))
    images, _ = pictures(16, side=16, dtype=torch.float32)
    params = net.initial(streams)
    spread = net.forward(params, images.expand(4, *images.shape)).std(dim=1).mean(dim=1)
    assert (spread > 0.05).all()
    assert (spread < 5).all()
    plain = Stacked(net.module()).initial(streams)  # torch's own values let it die
    assert (net.forward(plain, images.expand(4, *images.shape)).std(dim=1).mean(dim=1) < 0.005).all()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="norm must be"):
        ResNet(norm="layer")
    with pytest.raises(ValueError, match="multiples"):
        ResNet(widths=(12, 24, 48))
    with pytest.raises(ValueError, match="every stage"):
        ResNet(blocks=(1, 1))
    with pytest.raises(ValueError, match="poolings leave nothing"):
        CNN(widths=(8, 8, 8, 8), size=8)
    streams = Streams(replica_seeds(0, 2))
    flat = Supervised(ResNet(), CrossEntropy(), torch.zeros(8, 192), torch.zeros(8, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=r"give data as \(n, 3, height, width\)"):
        flat.gradient(ResNet().initial(streams), streams, 0)
