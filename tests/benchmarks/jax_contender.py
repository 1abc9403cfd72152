"""The same stack of nets in JAX: vmap over replicas, scan over steps, one jit. Started by engine.py.

Prints one JSON line: the seconds of a second run, already compiled, and the final loss. JAX sees the same data, draws
batches with replacement inside the scan and runs the same rule in the same precision.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
from task import LR, MOMENTUM, data


def initial(key):
    """Return one net with torch's default initialisation."""
    keys = jax.random.split(key, 4)
    shapes = {"w1": (64, 64), "b1": (64,), "w2": (64, 10), "b2": (10,)}
    return {
        name: jax.random.uniform(k, shape, minval=-0.125, maxval=0.125)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def loss(params, x, y):
    """Return the mean cross entropy of one replica."""
    hidden = jax.nn.relu(x @ params["w1"] + params["b1"])
    logits = hidden @ params["w2"] + params["b2"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--replicas", "--batch-size", "--steps"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--again", action="store_true", help="run a second time to tell computing from compiling")
    args = parser.parse_args()
    inputs, targets = (jnp.asarray(array) for array in data())
    lr, momentum = jnp.full(args.replicas, LR), jnp.full(args.replicas, MOMENTUM)
    keys = jax.random.split(jax.random.key(0), args.replicas)

    def update(rate, beta, key, params, velocity, step):
        index = jax.random.randint(jax.random.fold_in(key, step), (args.batch_size,), 0, len(inputs))
        gradient = jax.grad(loss)(params, inputs[index], targets[index])
        velocity = jax.tree.map(lambda v, g: beta * v + g, velocity, gradient)
        return jax.tree.map(lambda p, v: p - rate * v, params, velocity), velocity

    def advance(state, step):
        return jax.vmap(update, in_axes=(0, 0, 0, 0, 0, None))(lr, momentum, keys, *state, step), None

    def run(params, velocity):
        return jax.lax.scan(advance, (params, velocity), jnp.arange(args.steps))[0]

    run = jax.jit(run, donate_argnums=(0, 1))

    def once():
        params = jax.vmap(initial)(keys)
        return jax.block_until_ready(run(params, jax.tree.map(jnp.zeros_like, params)))[0]

    params = once()
    report = {"loss": float(jax.vmap(lambda p: loss(p, inputs, targets))(params).mean())}
    if args.again:
        clock = time.perf_counter()
        once()
        report["computing"] = time.perf_counter() - clock
    print(json.dumps(report))


if __name__ == "__main__":
    main()
