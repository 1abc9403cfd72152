"""However a command ends, what it has started ends with it, and what was finished before it is still there."""

from __future__ import annotations

import errno
import os
import pty
import signal
import subprocess
import sys
import time

import psutil
import pytest
from descent.book.commands import cli
from descent.book.commands.build import build, is_current
from descent.book.execute import signals
from descent.book.execute.execute import execute, execute_all, reasons
from descent.book.execute.lock import alone
from descent.book.execute.process import Job
from descent.book.execute.stamps import book_place
from descent.book.sources.project import BookError, Project
from test_faults import descent, kernels, listening, slow_down, wait_for
from toybook import REPOSITORY, edit

slow = pytest.mark.slow


def files(*places):
    """Return the content of all files at, or below, these places."""
    found = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    return {path: path.read_bytes() for path in found}


def execution(project, chapter="alpha"):
    place = book_place(project, chapter)
    return files(place.notebook, place.results, place.stamp)


def site(project):
    return files(project.html, project.build / "site.json")


def unfinished(project):
    return [path for path in (project.build / "work").iterdir() if path.is_dir()]


def gone(processes):
    """Tell whether processes end by themselves, long before their work would."""
    left = psutil.wait_procs(processes, timeout=30)[1]
    for process in left:
        process.kill()
    return not left


class Impatient:
    """Progress during which something happens as soon as a line is said that begins as given."""

    def __init__(self, log, line, action):
        self.log, self.line, self.action = log, line, action

    def __getattr__(self, name):
        return getattr(self.log, name)

    def say(self, line):
        self.log.say(line)
        if line.startswith(self.line):
            self.action()


def ctrl_c():
    raise KeyboardInterrupt


# ----------------------------------------------------------------------------------------------------------------
# Signals to a command


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_leaves_the_last_execution_and_the_site(project, tmp_path, number):
    executed, built = execution(project), site(project)
    sign, temporary = slow_down(project), tmp_path / "temporary"
    temporary.mkdir()
    running = descent(project, "build", env=os.environ | {"TMPDIR": str(temporary)})
    wait_for(sign)
    running.send_signal(number)
    said = running.communicate(timeout=60)[0]
    assert running.returncode == 128 + number
    assert f"descent: interrupted by {number.name}; what was finished before is kept\n" in said
    assert "Traceback" not in said
    assert not kernels(project)
    assert (execution(project), site(project)) == (executed, built)
    assert not unfinished(project)
    assert not list(temporary.iterdir())


@slow
def test_a_terminal_that_is_closed_ends_a_build_which_can_no_longer_speak(project):
    executed, sign = execution(project), slow_down(project)
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "from descent.book.commands.cli import main; sys.exit(main())",
        "--root",
        str(project.root),
        "build",
    ]
    running = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=listening
    )
    os.close(theirs)
    wait_for(sign)
    os.close(ours)
    assert running.wait(timeout=60) == 128 + signal.SIGHUP
    assert not kernels(project)
    assert execution(project) == executed
    assert not unfinished(project)


def test_the_second_signal_does_not_interrupt_how_the_first_is_answered():
    def ended_twice():
        with signals.raising():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(signals.Ended) as ended:
        ended_twice()
    assert ended.value.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_command_under_nohup_outlives_its_terminal():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raising():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


# ----------------------------------------------------------------------------------------------------------------
# Killed without a word


@slow
def test_after_a_kill_worker_and_kernel_end_by_themselves_and_nothing_is_lost(project, log):
    law = project.library / "toy" / "law.py"
    before = law.read_text()
    sign = slow_down(project)
    running = descent(project, "build")
    wait_for(sign)
    orphans = kernels(project)
    assert len(orphans) >= 2  # a worker and its kernel
    running.kill()
    running.communicate(timeout=60)
    assert gone(orphans)
    assert unfinished(project)
    law.write_text(before)
    build(project, log)
    assert log.lines[:3] == ["alpha: reused", "beta: reused", "site: reused"]
    assert not unfinished(project)


@slow
def test_an_orphan_does_not_overwrite_what_a_newer_execution_left(project, log):
    sign, go, saved = (project.root / name for name in ("running", "go", "saved"))
    edit(
        project.library / "toy" / "law.py",
        "return 2 * lr",
        "import time, pathlib; "
        f"pathlib.Path({str(sign)!r}).touch()\n    while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.05)\n"
        "    return 2 * lr",
    )
    edit(
        project.library / "toy" / "base.py",
        'folder = Path(os.environ["DESCENT_OUT"])',
        'folder = Path(os.environ["DESCENT_OUT"]); folder.mkdir(parents=True, exist_ok=True)',
    )
    with (project.library / "toy" / "base.py").open("a") as code:
        code.write(f"    Path({str(saved)!r}).touch()\n")
    running = descent(project, "build", "--jobs", "1")
    wait_for(sign)
    (worker,) = psutil.Process(running.pid).children()
    (kernel,) = worker.children()
    for process in (worker, kernel):
        process.suspend()  # so that neither learns of what happens now
    try:
        running.kill()
        running.communicate(timeout=60)
        (project.library / "toy" / "law.py").write_text("def value(lr):\n    return 3 * lr\n")
        edit(project.library / "toy" / "base.py", f"    Path({str(saved)!r}).touch()\n", "")
        execute_all(project, ["alpha"], {}, log)
        newer = execution(project)
        go.touch()
        kernel.resume()
        wait_for(saved)
    finally:
        for process in (kernel, worker):
            process.kill()
    assert execution(project) == newer
    assert b"1.5" in newer[project.results("alpha") / "table.csv"]
    assert reasons(project, "alpha", {}) == []


@slow
def test_a_worker_that_somebody_else_kills_costs_neither_execution_nor_site(project):
    executed, built, sign = execution(project), site(project), slow_down(project)
    running = descent(project, "build")
    wait_for(sign)
    for worker in psutil.Process(running.pid).children():
        worker.kill()
    said = running.communicate(timeout=60)[0]
    assert running.returncode == 1
    assert "alpha: killed before it had finished" in said
    assert (execution(project), site(project)) == (executed, built)


@slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_assembles_a_site_ends_with_the_build_and_the_previous_site_stays(project, tmp_path, number):
    built, sign = site(project), tmp_path / "running"
    edit(project.root / "_config.yml", "    extensions:\n", "    extensions:\n      - sleepy\n")
    (tmp_path / "sleepy.py").write_text(f"import pathlib, time\npathlib.Path({str(sign)!r}).touch()\ntime.sleep(600)\n")
    found = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    running = descent(project, "build", env=os.environ | {"PYTHONPATH": found})
    wait_for(sign)
    children = psutil.Process(running.pid).children()
    running.send_signal(number)
    running.communicate(timeout=60)
    assert children
    assert gone(children)
    assert site(project) == built


def moody_and_slow(project):
    """Let an experiment leave a sign that it runs, and then sleep."""
    sign = project.root / "running"
    code = f'def late(config, lab):\n    pathlib.Path({str(sign)!r}).touch()\n    time.sleep(600)\n\n\nPAPER = "T1"'
    edit(project.library / "toy" / "experiments" / "alpha.py", 'PAPER = "T1"', f"import pathlib, time\n\n\n{code}")
    edit(project.library / "toy" / "experiments" / "alpha.py", "lambda config, lab: config.base + lab.seed % 2", "late")
    return sign


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_a_check_end_with_it(project, number):
    sign = moody_and_slow(project)
    running = descent(project, "check", "alpha", "--only", "moody", "--seeds", "2", "--jobs", "2")
    wait_for(sign)
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(number)
    assert running.wait(timeout=60) == (-number if number == signal.SIGKILL else 128 + number)
    assert gone(children)
    assert "Traceback" not in running.communicate()[0]


@slow
def test_the_processes_of_a_campaign_end_with_it(tmp_path):
    call = ("saddles", "--only", "linear", "--only", "tradeoff", "--scale", "cpu", "--replicas", "30000", "--jobs", "2")
    running = descent(Project(REPOSITORY), "paper", *call, "--every", "0.2", "--out", str(tmp_path))
    until = time.monotonic() + 120
    while not list(tmp_path.rglob("call-*.npz")):
        assert time.monotonic() < until, "no checkpoint appeared"
        time.sleep(0.05)
    children = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    assert gone(children)
    running.communicate()


# ----------------------------------------------------------------------------------------------------------------
# What a build that is stopped, or edited while it runs, leaves


@pytest.mark.parametrize("line", ["alpha: reused", "site: reused"])
def test_ctrl_c_where_nothing_moved_leaves_the_site(project, log, line):
    before = site(project)
    with pytest.raises(KeyboardInterrupt):
        build(project, Impatient(log, line, ctrl_c))
    assert site(project) == before
    assert is_current(project)


def test_ctrl_c_before_a_new_site_is_there_leaves_the_previous_one(project, log):
    before = site(project)
    edit(project.source("index"), "A toy book\n", "A toy book, again\n")
    with pytest.raises(KeyboardInterrupt):
        build(project, Impatient(log, "site: assembling", ctrl_c))
    assert site(project) == before
    assert not is_current(project)


@pytest.mark.parametrize("line", ["alpha: reused", "site: assembling"])
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("chapters/index.md", "A toy book\n", "A toy book, once more\n"),
        ("_toc.yml", "  - file: chapters/status\n", ""),
        ("lib/toy/other.py", "lr + 0.5", "0.5 + lr"),
    ],
    ids=["page", "contents", "library"],
)
def test_what_is_edited_while_a_site_is_made_counts_as_not_built(project, log, unrendered, line, path, old, new):
    edit(project.source("alpha"), "A sentence about", "A better sentence about")
    build(project, Impatient(log, line, lambda: edit(project.root / path, old, new)))
    assert any(said.startswith("site: assembling because") for said in log.lines)
    assert not is_current(Project(project.root))


def test_a_table_of_contents_is_read_when_a_build_begins(project, log, unrendered):
    assert "status" in project.pages
    edit(project.root / "_toc.yml", "  - file: chapters/status\n", "")
    build(project, log)
    assert not (project.build / "source" / "status.md").exists()


@slow
def test_what_is_edited_while_a_chapter_is_executed_makes_it_stale(project, log):
    edit(project.source("alpha"), "value:.3f", "value:.4f")
    log.start = lambda *_: edit(project.source("alpha"), "value:.4f", "value:.5f")
    execute(Job(project, "alpha", {}, book_place(project, "alpha")), log)
    assert reasons(project, "alpha", {}) == ["chapter source"]


@slow
def test_a_chapter_that_meets_a_full_disk_keeps_its_last_execution(project, log):
    before = execution(project)
    full = f"raise OSError({errno.ENOSPC}, {os.strerror(errno.ENOSPC)!r})"
    edit(project.library / "toy" / "law.py", "return 2 * lr", full)
    with pytest.raises(BookError, match=r"(?s)alpha: a cell failed.*law\.py"):
        execute(Job(project, "alpha", {}, book_place(project, "alpha")), log)
    assert execution(project) == before


def test_references_are_not_renewed_while_a_build_runs(project, capsys):
    with alone(project):
        assert cli.main(["--root", str(project.root), "reference"]) == 1
    assert "another build works in _build/" in capsys.readouterr().err


def test_what_must_not_be_cut_in_two_is_finished_first():
    done, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted():
        with signals.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("to the end")
        done.append("never")

    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == ["to the end"]
