"""Commands: `descent build | run | check | paper | calibrate | compare | reference | serve | release | claims | …`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from descent import dispatch
from descent.book.execute import signals
from descent.book.execute.progress import Progress
from descent.book.site.serve import server
from descent.book.sources.project import BookError, Project, SourceError, find_project
from descent.trials import offered

T = TypeVar("T")
USAGE_FAULT = 2
PARAMETERS = """\
parameters of a chapter, each -p NAME=VALUE:
  scale      cpu, or gpu for the configuration of paper scale (default: cpu)
  seed       master seed, a whole number from 0 (default: 0)
  replicas   independent runs of every arm, 2 to 1000000 (default: 1000)
  device     where tensors live: cpu, cuda, cuda:1 (default: cpu)
  momentum   headline momentum, from 0 to below 1, for flatness to 0.99 (default: 0.9; margins:
             0.95, as a running average); synthesis has none
  lr         learning rate of streaming PCA, heavy ball, above 0; saddles alone (default: 5e-4)
"""
EXAMPLES = {
    "build": "descent build\n  descent build -p momentum=0.5 --jobs 1",
    "run": "descent run saddles -p momentum=0.99 -p replicas=64\n  descent run margins --out mine\n"
    "  descent run saddles -p seed=7 --bundle",
    "check": "descent check saddles --seeds 5\n  descent check geometry --only width --seeds 2 -p replicas=200",
    "compare": "descent compare runs/saddles-1a2b3c4d/results data/published/records/saddles.json",
    "new": "descent new rule mine.py\n  descent new claim saddles.warmth",
    "compare-rule": "descent compare-rule mine.py:MyRule\n"
    "  descent compare-rule mine.py:MyRule --against adam,sign --problem rare -p momentum=0.95\n"
    "  descent compare-rule lion --problem quadratic --out floors",
    "claims": "descent claims\n  descent claims P3-C2\n  descent claims P3-C2.noisier saddles",
    "serve": "descent serve --port 8080",
}
"""Calls that may be copied, by command; a test holds them to what the parser takes."""


class UsageError(BookError):
    """The command was called with something that does not exist or cannot be; nothing was run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 the book is at fault, 2 the call is."""
    dispatch.fix()  # before any command loads torch
    options = parser().parse_args(arguments)
    try:
        with signals.raising():
            if getattr(options, "anywhere", False):  # needs no book
                return int(options.action(None, options) or 0)
            project = find_project((options.root or Path.cwd()).resolve())
            return int(options.action(project, options) or 0)
    except UsageError as fault:
        print(f"descent: {fault}", file=sys.stderr)
        return USAGE_FAULT
    except BookError as fault:
        print(f"descent: {fault}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        _hushed()
        return 0
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, signals.Ended) else signal.SIGINT
        with contextlib.suppress(OSError):  # the terminal may be gone
            print(f"descent: interrupted by {number.name}; what was finished before is kept", file=sys.stderr)
        _hushed()
        return 128 + number


def _hushed() -> None:
    """Let what can no longer be said go nowhere: Python would end with a status of its own over it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def parser() -> argparse.ArgumentParser:
    """Return the parser with all sub-commands."""
    top = argparse.ArgumentParser(prog="descent", description="Execute, check and publish the book.")
    top.add_argument("--root", type=Path, help="folder of the book (default: found from the current folder upwards)")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=_epilog(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(action=action)
        return sub

    for add in (_book_commands, _experiment_commands, _other_commands, _rule_commands):
        add(command)
    return top


def _epilog(command: str) -> str:
    """Return what stands below the options of a command: the parameters it takes, and calls to copy."""
    examples = f"examples:\n  {EXAMPLES[command]}\n" if command in EXAMPLES else ""
    if command == "compare-rule":
        return f"{offered.listed()}\n{examples}"
    return f"{PARAMETERS}\n{examples}" if command in ("build", "run", "check") else examples


Command = Callable[[str, object, str], argparse.ArgumentParser]


def _book_commands(command: Command) -> None:
    sub = command("build", _build, "execute the chapters whose inputs moved and build the site")
    _execution_options(sub)
    sub.add_argument("--scale", choices=("cpu", "gpu"), help="short for -p scale=…")
    sub.add_argument("--force", action="store_true", help="execute every chapter again")
    sub.add_argument("--jobs", type=_jobs, default=None, help="chapters at a time (default: one per core)")

    sub = command("run", _run, "run one chapter with your own parameters and compare with the published intervals")
    sub.add_argument("chapter")
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="where the run goes (default: one under runs/)")
    sub.add_argument("--bundle", action="store_true", help="write one file of it, for an issue or data/reruns")
    _execution_options(sub)


def _experiment_commands(command: Command) -> None:
    sub = command("check", _check, "run a chapter's experiments for other master seeds and show which verdicts move")
    sub.add_argument("chapter")
    sub.add_argument("--seeds", type=_positive, default=5, help="how many master seeds beside the published one")
    sub.add_argument("--against", type=Path, metavar="FILE", help="compare every digit with these records instead")
    sub.add_argument("--save", action="store_true", help="keep the verdicts for the ledger, under data/published")
    sub.add_argument("--only", action="append", default=[], metavar="NAME", help="only this experiment (repeatable)")
    sub.add_argument("--jobs", type=_jobs, default=None, help="experiments at a time (default: one per core)")
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a parameter")

    sub = command("paper", _paper, "run a chapter's experiments at paper scale; resumes where it was stopped")
    sub.add_argument("chapter")
    sub.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="this experiment or claim; at night also a part of one, such as cifar:'CNN, full batch', "
        "a kind of work of --plan or what the names of units begin with (repeatable)",
    )
    sub.add_argument(
        "--out",
        type=Path,
        help="folder for results and checkpoints (default for a night: data/published/CHAPTER/night)",
    )
    sub.add_argument("--scale", choices=("gpu", "cpu", "night"), default="gpu")
    sub.add_argument("--device", default=None, help="torch device (default: cuda for gpu scale, cpu for cpu scale)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--replicas", type=_positive, default=None)
    sub.add_argument("--data", type=Path, default=None, help="folder of the image sets (default: $DESCENT_DATA)")
    sub.add_argument("--every", type=_amount, default=60.0, metavar="SECONDS", help="between two checkpoints")
    sub.add_argument("--jobs", type=_positive, default=1, help="processes side by side")
    sub.add_argument("--dask", metavar="ADDRESS", help="run on a cluster: the scheduler's tcp://host:port")
    sub.add_argument("--plan", action="store_true", help="print what would be run, and stop")
    sub.add_argument(
        "--calibration",
        type=Path,
        default=None,
        metavar="FILE",
        help="what `descent calibrate --out FILE` wrote: minutes are then those of that device",
    )
    sub.add_argument(
        "--budget",
        type=_amount,
        default=None,
        metavar="MINUTES",
        help="begin only what fits into so many minutes, in the order of --only",
    )

    sub = command("lease", _lease, "use an accelerator for some minutes: calibrate it, then run what is worth most")
    sub.add_argument("--minutes", type=_amount, required=True, help="of the machine, this command's start included")
    sub.add_argument("--device", default="cuda")
    sub.add_argument("--only", action="append", default=[], metavar="CHAPTER.NAME", help="this experiment (repeatable)")
    sub.add_argument("--scale", choices=("gpu", "cpu"), default="gpu", help="cpu to try it out at a small size")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--replicas", type=_positive, default=None)
    sub.add_argument("--data", type=Path, default=None, help="folder of the image sets (default: $DESCENT_DATA)")
    sub.add_argument("--out", type=Path, help="folder for the results (default: data/published/CHAPTER/gpu each)")
    sub.add_argument("--plan", action="store_true", help="print what would be run in which order, and stop")

    sub = command("calibrate", _calibrate, "check a device and time what it can do; run this first on a new machine")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--size", type=_amount, default=None, help="scale of what is timed (default: 1, on a CPU 0.02)")
    sub.add_argument("--repeats", type=_positive, default=5)
    sub.add_argument("--out", type=Path, default=None, help="file for the numbers, as JSON")


def _other_commands(command: Command) -> None:
    command("reruns", _reruns, "say of every run that others sent, under data/reruns, what it agrees with")

    sub = command("compare", _compare, "compare two sets of records, claim by claim")
    sub.add_argument("a", type=Path, help="records.json, ledger.json, or a folder that holds one")
    sub.add_argument("b", type=Path)

    sub = command("reference", _reference, "renew the reference notebooks that the tests compare with")
    sub.add_argument("chapters", nargs="*", metavar="chapter")

    sub = command("serve", _serve, "serve the built site")
    sub.add_argument("--port", type=int, default=8000)
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")

    command("release", _release, "pack the built site, and what it publishes, into dist/ with checksums")

    sub = command("claims", _claims, "list the claims with their rules and verdicts, or tell some of them whole")
    sub.add_argument("keys", nargs="*", metavar="KEY", help="P3-C2, P3-C2.noisier, P3 or saddles")
    sub.add_argument("--json", action="store_true", help="as JSON, for programs")

    sub = command("register", _register, "register rules and configurations; without KEY, list what is not")
    sub.add_argument("keys", nargs="*", metavar="KEY", help="P5-C11.bound, P5-C11, P5, geometry.width or geometry")
    sub.add_argument("--all", action="store_true", help="all that is not registered")
    sub.add_argument("--why", default="", help="what has moved a registered rule or configuration, or withdrawn it")
    sub.add_argument(
        "--basis",
        default="",
        choices=("theory", "paper", "margin", "pilot"),
        help="where the regions' numbers come from; needed for new rules, earlier ones keep theirs without it",
    )
    sub.add_argument("--start", action="store_true", help="begin an empty registry in a book that has none")


def _rule_commands(command: Command) -> None:
    sub = command(
        "compare-rule", _compare_rule, "try a rule of your own against others, tuned, with the step held equal"
    )
    sub.set_defaults(anywhere=True)
    sub.add_argument("rule", nargs="?", default="", metavar="RULE", help="mine.py:MyRule, or a built-in one")
    sub.add_argument(
        "--against", default="adam,heavy_ball", help="built-in rules, or FILE.py:NAME, with commas between"
    )
    sub.add_argument("--problem", default="digits", metavar="NAME", help="one of those below (default: digits)")
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a setting of it")
    sub.add_argument("--lr", default="", metavar="LOW:HIGH:COUNT", help="the grid of rates (default: the problem's)")
    sub.add_argument(
        "--match", choices=("reach", "response", "rms", "none"), default="reach", help="what the control makes equal"
    )
    sub.add_argument("--noise", choices=("raw", "symmetric"), default="symmetric", help="raw: no symmetric control")
    sub.add_argument("--replicas", type=_positive, default=32)
    sub.add_argument("--draws", type=_positive, default=8)
    sub.add_argument("--steps", type=_positive, default=None)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    sub.add_argument("--list", action="store_true", help="list the built-in rules, and stop")

    sub = command("new", _new, "write files to begin with: of a rule of one's own, or of a claim")
    sub.set_defaults(anywhere=True)
    sub.add_argument("kind", choices=("rule", "claim"))
    sub.add_argument("file", type=Path, metavar="FILE.py | CHAPTER.NAME")


def _execution_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    sub.add_argument("--timeout", type=_positive, default=1800, help="seconds a chapter may take")


def _build(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import build
    from descent.book.sources import parameters

    pairs = [*options.parameters, *([f"scale={options.scale}"] if options.scale else [])]
    given = _usage(parameters.given, project, project.notebooks, pairs)
    build.build(project, Progress(), given, jobs=options.jobs, force=options.force, timeout=options.timeout)


def _run(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import compare
    from descent.book.sources import parameters

    chapter = _usage(project.notebook, options.chapter)
    values = _usage(parameters.given, project, [chapter], options.parameters)[chapter]
    _usage(compare.run_place, project, chapter, values, options.out)  # refused before anything runs
    if options.bundle:
        _usage(compare.require_chance, project, chapter, values)
    print(compare.run(project, chapter, values, options.timeout, options.out, bundle=options.bundle))


def _check(project: Project, options: argparse.Namespace) -> int:
    from descent.book.commands import build, check, compare
    from descent.book.sources import parameters

    chapter = _usage(project.notebook, options.chapter)
    values = _usage(parameters.given, project, [chapter], options.parameters)[chapter]
    chosen = _usage(check.experiments, project, chapter, options.only)
    jobs = options.jobs or build.cores()
    if options.save and (options.only or values or options.against):
        raise UsageError("--save keeps a whole chapter as it is published; leave out --only, -p and --against")
    if options.save:
        compare.published(project, chapter)  # read first: a fault there must not cost the run
    if options.against is not None:
        alike = check.against(project, chapter, chosen, values, options.against, jobs=jobs)
        print(alike.table())
        return 1 if alike.different or not alike.compared else 0
    outcome = check.check(project, chapter, chosen, values, options.seeds, jobs=jobs)
    print(outcome.table())
    if options.save:
        print(check.save(project, chapter, outcome).relative_to(project.root))
    return 0 if outcome.survives else 1


def _paper(project: Project, options: argparse.Namespace) -> int:
    from descent.book.commands import paper

    return paper.paper(project, options, _usage)


def _lease(project: Project, options: argparse.Namespace) -> int:
    from descent.book.commands import lease

    return lease.run(project, options, _usage)


def _calibrate(project: Project, options: argparse.Namespace) -> int:
    from descent.book.commands import paper

    return paper.calibrate(options, _usage)


def _compare(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import compare

    print(_usage(compare.compare_files, options.a, options.b))


def _reruns(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import reruns

    print(reruns.table(project))


def _compare_rule(project: None, options: argparse.Namespace) -> int:
    from descent.book.commands import compare_rule

    return compare_rule.compare_rule(options, UsageError)


def _new(project: None, options: argparse.Namespace) -> int:
    from descent.book.commands import compare_rule, new_claim

    if options.kind == "rule":
        return compare_rule.new_rule(options, UsageError)
    book = find_project((options.root or Path.cwd()).resolve())
    print(_usage(new_claim.new_claim, book, str(options.file)))
    return 0


def _reference(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import build, reference
    from descent.book.execute.chapter import load
    from descent.book.execute.execute import execute_all
    from descent.book.execute.lock import alone

    chapters = [_usage(project.notebook, name) for name in options.chapters] or project.notebooks
    with alone(project):
        execute_all(project, chapters, {}, Progress(), jobs=build.cores())
        for chapter in chapters:
            for path in reference.renew(load(project, chapter)):
                print(path.relative_to(project.root))


def _serve(project: Project, options: argparse.Namespace) -> None:
    with _usage(server, project, options.host, options.port) as listening:
        print(f"http://{options.host}:{listening.server_port}/ (stop with Ctrl-C)", flush=True)
        listening.serve_forever()


def _release(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import release

    for path in release.release(project):
        print(path.relative_to(project.root))


def _claims(project: Project, options: argparse.Namespace) -> None:
    from descent.book.commands import claims, compare

    if options.keys and options.json:
        raise UsageError("--json prints every claim; leave out the keys")
    if options.keys:
        print(_usage(claims.told, project, options.keys))
    else:
        print(compare.claims_json(project) if options.json else compare.claims_table(project))


def _register(project: Project, options: argparse.Namespace) -> int:
    from descent.book.commands import register

    return register.register(project, options, _usage)


def _usage(function: Callable[..., T], *arguments: Any) -> T:
    """Call a checking function; what it refuses is a fault of the call."""
    try:
        return function(*arguments)
    except SourceError:  # of the book, whatever the call was
        raise
    except BookError as fault:
        raise UsageError(str(fault)) from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _amount(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text} is not a number above 0")


def _jobs(text: str) -> int | None:
    return None if text == "auto" else _positive(text)
