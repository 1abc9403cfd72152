"""Counter-based streams: the published vectors, independence of everything but the key, and the laws of the draws."""

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, philox, replica_seeds

VECTORS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
KINDS = {
    "normal": lambda s, step: s.normal(Purpose.NOISE, step, (5,)),
    "uniform": lambda s, step: s.uniform(Purpose.INIT, step, (2, 3)),
    "signs": lambda s, step: s.signs(Purpose.PROBE, step, (5,)),
    "integers": lambda s, step: s.integers(Purpose.BATCH, step, 1797, (7,)),
    "sample": lambda s, step: s.sample(Purpose.BATCH, step, 100, 7),
    "permutation": lambda s, step: s.permutation(Purpose.ORDER, step, 33),
}


def philox_of_integers(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second & 0xFFFFFFFF, (first >> 32) ^ c[3] ^ k[1], first & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_published_vectors(counter, key, words):
    assert philox(torch.tensor(counter), torch.tensor(key)).tolist() == words
    assert philox_of_integers(counter, key) == words


def test_equals_python_integers_on_random_counters():
    words = torch.from_numpy(np.random.default_rng(0).integers(0, 2**32, size=(500, 6)))
    found = philox(words[:, :4], words[:, 4:]).tolist()
    assert found == [philox_of_integers(row[:4], row[4:]) for row in words.tolist()]


def test_layout_of_a_draw():
    seeds = torch.tensor([2**40 + 17])
    streams = Streams(seeds)
    step = 2**33 + 5
    counter = torch.tensor([[e, 5, 2, Purpose.BATCH] for e in range(2)])
    words = philox(counter, torch.tensor([17, 2**8])).reshape(-1)
    assert streams.integers(Purpose.BATCH, step, 1000, (8,))[0].tolist() == (words * 1000 >> 32).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_draws_depend_on_the_replica_alone(draw, dtype):
    seeds = replica_seeds(3, 37)
    whole = Streams(seeds, dtype)
    expected = [draw(whole, step) for step in range(40)]
    order = torch.randperm(37, generator=torch.Generator().manual_seed(0))
    others = {
        "alone": (Streams(seeds[5:6], dtype), slice(5, 6)),
        "shuffled": (Streams(seeds[order], dtype), order),
        "subset": (whole.subset(slice(8, 20)), slice(8, 20)),
        "no cache": (Streams(seeds, dtype, budget=0), slice(None)),
        "arms": (Streams(seeds.repeat(3), dtype), torch.arange(37).repeat(3)),
    }
    for name, (streams, rows) in others.items():
        for step in range(40):
            assert torch.equal(draw(streams, step), expected[step][rows]), name


@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_order_of_calls_does_not_matter(draw):
    seeds = replica_seeds(0, 4)
    forward, scattered = Streams(seeds), Streams(seeds)
    expected = [draw(forward, step) for step in range(30)]
    for step in [29, 3, 4, 5, 6, 0, 28, 7, 2, 1, 2]:
        assert torch.equal(draw(scattered, step), expected[step])


def test_large_draws_are_cut_into_pieces_without_a_seam():
    seeds = replica_seeds(1, 3)
    wide = Streams(seeds).normal(Purpose.NOISE, 9, (300_000,))
    assert torch.equal(wide[1:2, :50], Streams(seeds[1:2]).normal(Purpose.NOISE, 9, (50,)))
    alone = Streams(seeds[2:]).normal(Purpose.NOISE, 9, (300_000,))
    assert torch.equal(wide[2:], alone)


def test_threads_do_not_matter():
    threads = torch.get_num_threads()
    draws = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            draws.append(Streams(replica_seeds(1, 50)).normal(Purpose.NOISE, 0, (3000,)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*draws)


def test_a_draw_can_be_overwritten_without_harm():
    streams = Streams(replica_seeds(0, 3))
    first = streams.normal(Purpose.DATA, 0, (4,))
    kept = first.clone()
    first.zero_()
    assert torch.equal(streams.normal(Purpose.DATA, 0, (4,)), kept)


def test_replica_seeds_are_prefixes_and_differ():
    assert torch.equal(replica_seeds(5, 1000)[:10], replica_seeds(5, 10))
    every = torch.cat([replica_seeds(seed, 1000) for seed in (0, 1, 2**40)])
    assert len(every.unique()) == 3000
    assert bool((every >= 0).all())


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_permutation_is_a_bijection(n):
    drawn = Streams(replica_seeds(2, 50)).permutation(Purpose.ORDER, 0, n)
    assert torch.equal(drawn.sort(dim=1).values, torch.arange(n).expand(50, n))


def test_permutations_of_three_are_equally_likely():
    drawn = Streams(replica_seeds(2, 30_000)).permutation(Purpose.ORDER, 0, 3)
    counts = torch.bincount(drawn[:, 0] * 9 + drawn[:, 1] * 3 + drawn[:, 2])
    counts = counts[counts > 0].double()
    assert len(counts) == 6
    assert (((counts - 5000) ** 2) / 5000).sum() < 25.7  # χ² with 5 degrees of freedom, p = 1e-4


@pytest.mark.parametrize(("n", "size"), [(6, 2), (5, 4), (5, 5), (40, 6)])
def test_samples_are_distinct_and_fair(n, size):
    replicas = 20_000
    drawn = Streams(replica_seeds(4, replicas)).sample(Purpose.BATCH, 1, n, size)
    assert drawn.shape == (replicas, size)
    assert bool((drawn.sort(dim=1).values.diff(dim=1) > 0).all())
    rate = torch.zeros(n, dtype=torch.float64).scatter_add_(
        0, drawn.reshape(-1), torch.ones(drawn.numel(), dtype=torch.float64)
    )
    p = size / n
    sd = (replicas * p * (1 - p)) ** 0.5
    assert ((rate - replicas * p).abs() <= 5 * sd + 1e-9).all()


def test_integers_are_uniform():
    drawn = Streams(replica_seeds(0, 1000)).integers(Purpose.BATCH, 0, 50, (1000,)).reshape(-1)
    counts = torch.bincount(drawn, minlength=50).double()
    chi = ((counts - 20_000) ** 2 / 20_000).sum()
    assert abs(chi - 49) < 5 * 98**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments(dtype):
    streams, n = Streams(replica_seeds(0, 1000), dtype), 400_000
    x = streams.normal(Purpose.NOISE, 0, (400,)).double()
    for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)]:
        assert abs((x**power).mean() - mean) < 5 * (variance / n) ** 0.5
    u = streams.uniform(Purpose.NOISE, 0, (400,)).double()
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert u.min() > 0
    assert u.max() < 1
    s = streams.signs(Purpose.NOISE, 0, (400,))
    assert set(s.unique().tolist()) == {-1.0, 1.0}
    assert abs(s.double().mean()) < 5 / n**0.5


def test_float64_tail_is_there():
    """Beyond 4.5 standard deviations: expected count from the normal law, within 5 of its own standard deviations."""
    x = Streams(replica_seeds(7, 1000), torch.float64).normal(Purpose.NOISE, 0, (4000,))
    expected = 2 * 3.3976731e-6 * x.numel()
    assert abs((x.abs() > 4.5).sum() - expected) < 5 * expected**0.5


def test_neighbours_are_uncorrelated():
    streams, n = Streams(replica_seeds(0, 400), torch.float64), 400 * 500
    base = streams.normal(Purpose.NOISE, 0, (500,))
    others = {
        "step": streams.normal(Purpose.NOISE, 1, (500,)),
        "purpose": streams.normal(Purpose.DATA, 0, (500,)),
        "replica": base.roll(1, dims=0),
        "element": base.roll(1, dims=1),
        "master seed": Streams(replica_seeds(1, 400), torch.float64).normal(Purpose.NOISE, 0, (500,)),
    }
    for name, other in others.items():
        for f in (lambda t: t, lambda t: t.square() - 1):
            z = (f(base) * f(other)).sum() / (f(base).square().sum() * f(other).square().sum() / n).sqrt()
            assert abs(z) < 4.5, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)
def test_a_gpu_draws_the_same(draw):
    """Integers bit for bit; logarithms and cosines may differ in the last place."""
    seeds = replica_seeds(0, 9)
    here, there = draw(Streams(seeds), 3), draw(Streams(seeds.cuda()), 3).cpu()
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-6 if here.is_floating_point() else 0)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="1-d int64"):
        Streams(torch.zeros(3))
    with pytest.raises(ValueError, match="float32 or torch"):
        Streams(replica_seeds(0, 3), torch.float16)
    with pytest.raises(ValueError, match="high"):
        Streams(replica_seeds(0, 3)).integers(0, 0, 2**31, (1,))
    with pytest.raises(ValueError, match="distinct members"):
        Streams(replica_seeds(0, 3)).sample(0, 0, 3, 4)
