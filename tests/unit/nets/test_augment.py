"""Augmentation against slices and flips of padded images, and its independence of everything but the seed."""

from __future__ import annotations

import pytest
import torch
from descent.engine.rules import heavy_ball
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.nets.augment import Augment
from descent.nets.convolutional import CNN
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised


def pictures(count: int, height: int = 8, width: int = 8):
    draws = Streams(torch.tensor([5])).normal(Purpose.DATA, 0, (count, 3, height, width))
    return draws[0], torch.arange(count) % 10


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0, 1, 4, 6])
@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_it_is_slice_and_flip_of_the_padded_image(padding, mode, shift, flip):
    augment, streams = Augment(shift, flip, padding), Streams(replica_seeds(0, 3))
    images, _ = pictures(30, 7, 9)
    index = streams.integers(Purpose.BATCH, 4, 30, (40,))
    found = augment.take(images, index, streams, 4)
    down, right, mirrored = augment.draw(streams, 4, 40)
    padded = torch.nn.functional.pad(images, (shift,) * 4, mode) if shift else images
    for r in range(3):
        for b in range(40):
            y, x = shift + int(down[r, b]), shift + int(right[r, b])
            wanted = padded[index[r, b], :, y : y + 7, x : x + 9]
            wanted = wanted.flip(-1) if mirrored[r, b] else wanted
            assert torch.equal(found[r, b], wanted), (r, b)


def test_every_shift_and_both_sides_are_equally_likely():
    augment, streams = Augment(2), Streams(replica_seeds(0, 8))
    draws = [torch.stack(augment.draw(streams, step, 500)) for step in range(20)]
    down, right, mirrored = torch.stack(draws, dim=1).flatten(1)
    counts = torch.bincount((down + 2) * 10 + (right + 2) * 2 + mirrored, minlength=50).double()
    expected = counts.sum() / 50
    chi = float(((counts - expected) ** 2 / expected).sum())
    assert 20 < chi < 100  # 49 degrees of freedom: mean 49, standard deviation 10
    assert not torch.equal(draws[0], draws[1])
    assert not Augment(2, flip=False).draw(streams, 0, 500)[2].any()


def test_what_a_replica_sees_depends_on_its_seed_alone():
    augment, streams = Augment(3), Streams(replica_seeds(0, 6))
    images, _ = pictures(20)
    index = streams.integers(Purpose.BATCH, 0, 20, (10,))
    whole = augment.take(images, index, streams, 2)
    part = augment.take(images, index[[4, 1]], streams.subset(torch.tensor([4, 1])), 2)
    assert torch.equal(part, whole[[4, 1]])


@pytest.mark.parametrize("sampling", ["with_replacement", "shuffled_epochs", "full"])
def test_batches_are_augmented_and_evaluation_is_not(sampling):
    images, labels = pictures(20)
    size = None if sampling == "full" else 6
    net, streams, augment = CNN(widths=(8,), dense=(), size=8), Streams(replica_seeds(0, 3)), Augment(2)
    plain = Supervised(net, CrossEntropy(), images, labels, size, sampling)
    moved = Supervised(net, CrossEntropy(), images, labels, size, sampling, augment=augment)
    inputs, targets = moved.batch(streams, 1)
    index = plain.indices(streams, 1)
    assert torch.equal(inputs, augment.take(images, index, streams, 1))
    assert torch.equal(targets, labels[index])
    assert not torch.equal(inputs, plain.batch(streams, 1)[0])
    params = net.initial(streams)
    assert torch.equal(moved.value(params), plain.value(params))


def test_training_with_it_does_not_depend_on_the_chunks():
    images, labels = pictures(40)
    net, streams = CNN(widths=(8,), dense=(), size=8), Streams(replica_seeds(0, 4))
    objective = Supervised(net, CrossEntropy(), images, labels, [8, 8, 5, 5], augment=Augment(2))
    start = net.initial(streams)
    whole = train(objective, start, heavy_ball([0.05] * 4, 0.9), 5, streams)
    rows = slice(2, 4)
    alone = train(
        objective.subset(rows),
        {name: leaf[rows] for name, leaf in start.items()},
        heavy_ball([0.05] * 2, 0.9),
        5,
        streams.subset(rows),
    )
    assert all(torch.equal(leaf[rows], alone.params[name]) for name, leaf in whole.params.items())


def test_mistakes_are_named():
    images, labels = pictures(10)
    with pytest.raises(ValueError, match="not be negative"):
        Augment(-1)
    with pytest.raises(ValueError, match="padding"):
        Augment(padding="wrap")
    with pytest.raises(ValueError, match="more than 8 pixels"):
        Supervised(MLP((192, 10)), CrossEntropy(), images, labels, 5, augment=Augment(8))
    with pytest.raises(ValueError, match=r"needs inputs \(n, channels, height, width\)"):
        Supervised(MLP((192, 10)), CrossEntropy(), images.flatten(1), labels, 5, augment=Augment(1))
