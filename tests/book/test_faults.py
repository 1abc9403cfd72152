"""Builds that meet what real machines do: a kill, a full disk, a second build, an impatient reader. All for real."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from descent.book.commands.build import build, is_current
from descent.book.execute.process import Job, allow_workers, run_worker, stop_all
from descent.book.execute.stamps import book_place
from descent.book.execute.worker import started_anew
from descent.book.sources import records, source
from descent.book.sources.project import BookError
from toybook import edit

pytestmark = pytest.mark.slow


def listening():
    """Let a process that is being started listen to the signals that end a command."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def descent(project, *arguments, preexec_fn=None, **options):
    """Start a command of the book in a process of its own, which listens to signals even if the tests do not.

    A shell has what it runs in the background ignore Ctrl-C, nohup a closed terminal, and so does what starts there.
    """

    def listen():
        listening()
        if preexec_fn is not None:
            preexec_fn()

    command = [sys.executable, "-m", "descent", "--root", str(project.root), *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, preexec_fn=listen, **output, **options)


def slow_down(project, seconds=60):
    """Let a cell of alpha leave a sign that it runs, and then sleep."""
    sign = project.root / "running"
    body = f"import time, pathlib; pathlib.Path({str(sign)!r}).touch(); time.sleep({seconds}); return 2 * lr"
    edit(project.library / "toy" / "law.py", "return 2 * lr", body)
    return sign


def wait_for(path, seconds=180):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path.name} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("message", "fails", "tries"),
    [("Kernel died before replying to kernel_info", 2, 3), ("Kernel died before replying to kernel_info", 9, 3),
     ("a cell failed", 9, 1)],
)  # fmt: skip
def test_a_kernel_that_found_its_port_taken_is_started_anew(message, fails, tries):
    tried = []

    def execute():
        tried.append(message)
        if len(tried) <= fails:
            raise RuntimeError(message)

    with contextlib.nullcontext() if fails < tries else pytest.raises(RuntimeError, match=message):
        started_anew(execute)
    assert len(tried) == tries


def kernels(project):
    """Return the processes that work for this book."""
    found = []
    for process in psutil.process_iter(["environ"]):
        if str(project.root) in str((process.info["environ"] or {}).get("DESCENT_OUT", "")):
            found.append(process)
    return found


def test_two_builds_at_once_do_not_meet(project, log):
    sign = slow_down(project)
    first = descent(project, "build")
    try:
        wait_for(sign)
        second = descent(project, "build")
        said = second.communicate(timeout=60)[0]
        assert second.returncode == 1
        assert f"another build works in _build/ (process {first.pid})" in said
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)


def test_a_killed_build_leaves_no_lock_and_is_taken_up_again(project, log):
    sign = slow_down(project)
    edit(project.library / "toy" / "other.py", "lr + 0.5", "0.5 + lr")
    first = descent(project, "build", "--jobs", "1")
    wait_for(sign)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    for process in kernels(project):
        process.kill()
    edit(project.library / "toy" / "law.py", "time.sleep(60)", "time.sleep(0)")
    build(project, log)
    assert is_current(project)
    assert "alpha: re-executed because: library toy.law, value" in log.lines


def test_ctrl_c_stops_a_chapter_at_once_and_the_rest_is_kept(project):
    sign = slow_down(project)
    beta = book_place(project, "beta").stamp.read_text()
    running = descent(project, "build")
    wait_for(sign)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=300)[0]  # the chapter would sleep for longer
    assert running.returncode == 130
    assert "descent: interrupted" in said
    assert "Traceback" not in said
    assert not kernels(project)
    assert book_place(project, "beta").stamp.read_text() == beta  # a finished chapter stays finished


def test_a_worker_that_is_only_being_started_does_not_slip_through(project, log, tmp_path):
    slow_down(project)
    notebook = source.read(project.source("alpha"))
    stop_all()
    try:
        with pytest.raises(BookError, match="alpha"):
            run_worker(Job(project, "alpha", {}, book_place(project, "alpha")), notebook, tmp_path, log)
    finally:
        allow_workers()
    assert not kernels(project)


@pytest.mark.parametrize("room", [3_000, 40_000])
def test_a_full_disk_leaves_the_previous_book_as_it_was(project, room):
    before = {path: path.read_bytes() for path in project.html.rglob("*") if path.is_file()}
    edit(project.source("index"), "A toy book\n", "A toy book, again\n")

    def quota():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    full = descent(project, "build", preexec_fn=quota)
    said = full.communicate(timeout=120)[0]
    assert full.returncode == 1, said
    assert "no room left" in said
    assert {path: path.read_bytes() for path in project.html.rglob("*") if path.is_file()} == before
    assert not is_current(project)  # and it does not pass for a fresh one


def test_after_a_full_disk_the_build_succeeds_again(project, log):
    edit(project.source("index"), "A toy book\n", "A toy book, again\n")
    full = descent(project, "build", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
    full.communicate(timeout=120)
    build(project, log)
    assert "A toy book, again" in (project.html / "index.html").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("1.0", "1.1"),
        lambda text: text.replace('"schema": 1', '"schema": 7'),
        lambda text: "",
    ],
)
def test_damaged_records_are_refused_by_name_never_used(project, log, unrendered, damage):
    file = project.results("alpha") / "records.json"
    whole = file.read_text()
    file.write_text(damage(whole))
    with pytest.raises(BookError, match=r"records\.json|T1-C1"):
        records.load(project)
    build(project, log)  # and the chapter is executed again
    assert "alpha: re-executed because: its outputs were altered: results/records.json" in log.lines
    assert file.read_text() == whole
