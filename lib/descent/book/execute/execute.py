"""Execute the chapters whose inputs moved, side by side, and say why."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import date

from descent.book.execute import digest, signals
from descent.book.execute.disk_full import is_blameless
from descent.book.execute.process import TIMEOUT, Job, allow_workers, run_worker, stop_all
from descent.book.execute.progress import Progress
from descent.book.execute.stamps import Place, Stamp, book_place, outputs, read_stamp
from descent.book.execute.work import own_folder
from descent.book.sources import source
from descent.book.sources.project import BookError, Project, Unfinished
from descent.results import write_atomic

Given = Mapping[str, Mapping[str, source.Value]]
"""Per chapter, the parameters that differ from its defaults."""


def reasons(project: Project, chapter: str, parameters: Mapping[str, source.Value]) -> list[str]:
    """Return why a chapter must be executed again; none when its execution can be reused."""
    place = book_place(project, chapter)
    stamp = read_stamp(place)
    if stamp is None or not place.notebook.is_file() or not place.results.is_dir():
        return ["no finished execution"]
    moved = digest.moved(stamp.inputs, digest.inputs(project, chapter, parameters))
    lost = digest.altered(stamp.outputs, outputs(place))
    return [*moved, f"its outputs were altered: {digest.some(lost)}"] if lost else moved


def execute_all(
    project: Project,
    chapters: Iterable[str],
    given: Given,
    progress: Progress,
    *,
    jobs: int = 1,
    force: bool = False,
    timeout: float = TIMEOUT,
) -> dict[str, list[str]]:
    """Execute what moved; return the reasons per chapter, none for a reused one.

    Raises: BookError with the tracebacks when cells fail, after the other chapters have ended; Unfinished when none
    failed, but some were stopped from outside.
    """
    why = {name: ["asked for"] if force else reasons(project, name, given.get(name, {})) for name in chapters}
    for name, because in why.items():
        progress.say(f"{name}: re-executed because: {digest.some(because)}" if because else f"{name}: reused")

    def one(name: str) -> BookError | None:
        job = Job(project, name, given.get(name, {}), book_place(project, name), timeout)
        try:
            execute(job, progress)
        except BookError as fault:
            return fault
        return None

    allow_workers()
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        faults = list(filter(None, pool.map(one, [name for name in why if why[name]])))
    except BaseException:  # Ctrl-C above all: nothing further starts, and what runs is stopped at once
        pool.shutdown(wait=False, cancel_futures=True)
        stop_all()
        raise
    finally:
        pool.shutdown()
    if faults:
        kind = Unfinished if all(isinstance(fault, Unfinished) for fault in faults) else BookError
        raise kind("\n\n".join(map(str, faults)))
    return why


def execute(job: Job, progress: Progress) -> Stamp:
    """Execute one chapter in a folder of its own, and put it in its place once it has finished.

    Raises: BookError with the traceback when a cell fails, and leaves nothing then. Whatever else ends it, such as
    Ctrl-C or a full disk, leaves the last execution as it was.
    """
    before = read_stamp(job.place)
    notebook = source.read(job.project.source(job.chapter))
    inputs = digest.inputs_of(job.project, job.chapter, notebook, job.parameters)  # ahead of all that is executed
    progress.start(job.chapter, before.seconds if before else None)
    with _cleared_by_a_fault(job.place), own_folder(job.project, job.chapter) as work:
        made = Place(work / "finished" / job.place.notebook.name, work / "results", work / "stamp.json")
        made.results.mkdir()
        cost = run_worker(replace(job, place=made), notebook, work, progress)
        write_atomic(made.notebook, source.dump(_plain(source.load(work / "executed.ipynb"))))
        today = date.today().isoformat()
        stamp = Stamp(
            inputs, dict(job.parameters), digest.total(inputs), cost["seconds"], cost["peak_mib"], today, outputs(made)
        )
        write_atomic(made.stamp, json.dumps(asdict(stamp), indent=1, sort_keys=True))
        with signals.held():
            made.move_to(job.place)
    progress.finish(job.chapter, f"{job.chapter}: executed in {stamp.seconds:.0f} s, {stamp.peak_mib} MiB")
    return stamp


@contextlib.contextmanager
def _cleared_by_a_fault(place: Place) -> Iterator[None]:
    try:
        yield
    except BaseException as fault:
        if not is_blameless(fault):
            place.clear()
        raise


def _plain(notebook: source.Notebook) -> source.Notebook:
    """Drop paths and times from an executed notebook."""
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook
