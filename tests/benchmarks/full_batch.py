"""Time full gradients of convolutional networks in parts that stay in cache, as they are taken, against in one piece.

    OMP_NUM_THREADS=1 python tests/benchmarks/full_batch.py --rounds 7

2048 images of 16 × 16 pixels, one network. Both take turns, the clock is the processor time of this process, and each
ratio is between neighbours in time. Printed: images per second in parts, and the median of the ratios with the smallest
and the largest; above 1 parts are faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

from descent.dispatch import fix

fix()

import torch  # noqa: E402
from descent.engine.streams import Purpose, Streams, replica_seeds  # noqa: E402
from descent.nets.convolutional import CNN, ResNet  # noqa: E402
from descent.nets.dense import CrossEntropy  # noqa: E402
from descent.nets.supervised import Supervised  # noqa: E402

IMAGES, SIDE = 2048, 16
NETS = {"ResNet-8": ResNet(), "ResNet-20": ResNet(blocks=(3, 3, 3)), "CNN": CNN(size=SIDE)}


def seconds(objective: Supervised, streams: Streams) -> float:
    """Return the processor time of one full gradient."""
    params = objective.model.initial(streams)
    start = time.process_time()
    objective.gradient(params, streams, 0)
    return time.process_time() - start


def main() -> None:
    """Time every net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    streams = Streams(replica_seeds(0, 1))
    inputs = streams.normal(Purpose.DATA, 0, (IMAGES, 3, SIDE, SIDE))[0]
    for name, net in NETS.items():
        parts = Supervised(net, CrossEntropy(), inputs, torch.arange(IMAGES) % 10, sampling="full")
        whole = replace(parts, model=replace(net, working_set=1 << 50))
        pairs = [(seconds(whole, streams), seconds(parts, streams)) for _ in range(rounds + 1)][1:]
        ratios, pace = [a / b for a, b in pairs], IMAGES / statistics.median(b for _, b in pairs)
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        print(f"{name}: {pace:.0f} images/s, {middle:.2f} [{least:.2f}, {most:.2f}] times as fast as in one piece")


if __name__ == "__main__":
    main()
