"""The same campaign on a cluster of real processes: a worker is killed, the scheduler is lost, nothing is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from descent.book.commands.cli import main
from descent.experiments.lab import Lab
from descent.runs import campaign

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
PACKAGE = "descent.experiments.flatness"  # its first experiments take a second or two
PATIENCE = 120
"""Seconds for what takes two on a quiet machine."""
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}


@contextmanager
def running(role, *options):
    """Run a process of the cluster; it is gone afterwards, whatever happened."""
    command = [sys.executable, "-m", "dask", role, "--host", "127.0.0.1", "--no-dashboard", *options]
    process = subprocess.Popen(command, **QUIET)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def scheduler(file):
    """Run a scheduler; yield its address and its process."""
    with running("scheduler", "--port", "0", "--scheduler-file", str(file)) as process:
        until = time.monotonic() + PATIENCE
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], process


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a scheduler and two workers of one thread each on loopback; return address and scheduler.

    One for the tests of this file, which kill more and more of it. Without nannies: what is killed is not replaced.
    """
    # A worker gives up once it has seen no scheduler for so long; on a busy machine connecting takes seconds.
    options = ("--nthreads", "1", "--no-nanny", "--death-timeout", str(PATIENCE))
    folder = tmp_path_factory.mktemp("cluster")
    with scheduler(folder / "scheduler.json") as (address, process), ExitStack() as workers:
        for _ in range(2):
            workers.enter_context(running("worker", address, *options))
        with distributed.Client(address, timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        yield address, process


def todo(count):
    """Return that many tasks of a second or more, one per master seed, each under a name of its own."""
    return [campaign.Task(PACKAGE, "floors", Lab(seed=seed, replicas=40)) for seed in range(count)]


def essence(content):
    return {key: content[key] for key in ("mark", "estimates", "config", "tables", "lab")}


def call(*arguments):
    return ["--root", str(ROOT), "paper", "flatness", "--scale", "cpu", *map(str, arguments)]


def test_a_cluster_without_workers_is_refused(tmp_path, capsys):
    with scheduler(tmp_path / "scheduler.json") as (address, _):
        assert main(call("--dask", address, "--out", tmp_path / "out")) == 1
    words = f"the scheduler at {address} has no workers; start some with `dask worker {address}`"
    assert words in capsys.readouterr().err


def test_a_cluster_gives_what_one_machine_gives(cluster, tmp_path):
    address, _ = cluster
    some = ("--only", "floors", "--replicas", "100")
    for name, where in (("here", ()), ("there", ("--dask", address))):
        assert main(call(*some, *where, "--out", tmp_path / name)) == 0
    first, second = (json.loads((tmp_path / name / "floors.result.json").read_text()) for name in ("here", "there"))
    assert essence(first) == essence(second)
    assert (tmp_path / "here/noise_floors.csv").read_bytes() == (tmp_path / "there/noise_floors.csv").read_bytes()


def test_a_killed_worker_loses_and_doubles_nothing(cluster):
    address, _ = cluster
    whole = [campaign.run(task) for task in todo(6)]
    with distributed.Client(address, set_as_default=False) as client:
        victims, seen = list(client.run(os.getpid).values()), []

        def each(index, _):
            seen.append(index)
            if len(seen) == 1:
                os.kill(victims[0], signal.SIGKILL)

        found = campaign.sweep(campaign.run, todo(6), client.get_executor(pure=False, retries=3), each=each)
    assert sorted(seen) == list(range(6))
    assert [essence(a) for a in found] == [essence(b) for b in whole]


def test_a_lost_scheduler_is_said_and_what_was_finished_is_kept(cluster, tmp_path, capsys):
    address, scheduler = cluster
    out = tmp_path / "out"
    some = ("--only", "floors", "--only", "wells", "--only", "samples", "--replicas", "40", "--out", out)
    line = [sys.executable, "-m", "descent", *call(*some, "--dask", address)]
    begun = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 120
    while not (out / "floors.result.json").exists() and time.monotonic() < until and begun.poll() is None:
        time.sleep(0.05)
    os.killpg(scheduler.pid, signal.SIGKILL)
    said = begun.communicate(timeout=120)[0]
    assert begun.returncode == 1, said
    assert "results are kept in" in said
    assert "run the same command to resume" in said
    kept = (out / "floors.result.json").read_bytes()
    assert main(call(*some)) == 0
    assert "of 3 tasks are done already" in capsys.readouterr().out
    assert (out / "floors.result.json").read_bytes() == kept
    results = {f"{name}.result.json" for name in ("floors", "wells", "samples")}
    assert results | {"records.json"} <= {path.name for path in out.iterdir()}
