"""Train a stack of R replicas as one tensor program.

Parameters are a tensor or a dictionary of tensors, every one with the replica axis first. Replicas never
mix: hyper-parameters are (R,) tensors, random numbers come from `Streams`, and a replica that diverges is
frozen and recorded while its neighbours go on, bit for bit as if it had not diverged.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, cast

from torch import Tensor

from descent.engine.checkpoint import Checkpoint, Keeping, Timed, fingerprint, kept
from descent.engine.graphs import cut_for_graphs
from descent.engine.probes import Every, FirstPassage, P, P_co, Params, Probe, Recorder, Series, every, recorder
from descent.engine.rule import AnyRule
from descent.engine.ruled import cut, given_of, slots
from descent.engine.rules import Schedule, product
from descent.engine.stack import Chunk, Leaves, Objective, Plan, State, joined, leaves
from descent.engine.streams import Streams

__all__ = [
    "Checkpoint",
    "Control",
    "Every",
    "FirstPassage",
    "Noisy",
    "Objective",
    "Params",
    "Probe",
    "Run",
    "Series",
    "every",
    "train",
]

SAMPLE = 1 << 16
"""Elements of a tensor that an objective holds by which a checkpoint knows it."""


@dataclass(frozen=True)
class Noisy(Generic[P]):
    """A full gradient plus noise of the user's making: g = full(params) + noise(params, streams, step)."""

    full: Callable[[P], P]  # the gradient without noise, of the parameters
    noise: Callable[[P, Streams, int], P]  # what is added, of parameters, streams and step

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the noisy gradient of every replica."""
        full, noise = leaves(self.full(params)), leaves(self.noise(params, streams, step))
        total = {name: full[name] + noise[name] for name in full}
        return cast(P, joined(total))  # the names are those of full


@dataclass(frozen=True, eq=False)
class Run(Generic[P_co]):
    """What a run leaves behind.

    diverged_at: (R,) int64, the step whose update broke the replica, −1 = never. A replica that diverged
    stays as it was found then: in params, in velocity and in the records. state: the slots of rules outside the linear
    family, "slot/leaf" (R, …), and their age (R,).
    """

    params: P_co
    velocity: P_co
    diverged_at: Tensor
    records: dict[str, Series]
    steps: int
    seconds: float
    state: Leaves = field(default_factory=dict)


class Control(Protocol):
    """What looks at the parameters now and then, and sets rates by what it sees."""

    def bound(self, objective: Any, rule: AnyRule, streams: Streams, schedule: Schedule | None) -> Bound:
        """Return the control of one run."""


class Bound(Probe[Any], Protocol):
    """A control of one run: a probe that measures, and a schedule of what it measured last."""

    def schedule(self, step: int) -> Any:
        """Return the factors that hold since the last look."""

    def hold(self, measured: Tensor) -> None:
        """Go on from what was measured before a run was cut short."""


def train(
    objective: Objective[P],
    start: P,
    rule: AnyRule,
    steps: int,
    streams: Streams,
    *,
    probes: Mapping[str, Probe[P]] | None = None,
    schedule: Schedule | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
    velocity: P | None = None,
    state: Leaves | None = None,
    control: Control | None = None,
    begin: int = 0,
    limit: float = 1e6,
    check: int = 1,
    budget: int = 2 << 30,
    graphs: bool = False,
) -> Run[P]:
    """Advance every replica from step `begin` to step `steps`, recording what the probes ask for.

    start: parameters, each leaf (R, …), left as they are.
    rule: of any kind, or several kinds as one stack; linear ones go a faster path.
    velocity: the buffer to go on with (default: empty); state: the slots of rules outside the linear family.
    control: sets rates by what it measures on the way, which is recorded as "control".
    limit: a replica diverges when its parameter norm exceeds this or is not finite.
    check: steps between two looks for divergence (on a GPU every look waits for the device).
    budget: bytes of working memory, for objectives that can be cut into chunks.
    graphs: capture the steps between two looks and replay them, see `descent.engine.graphs`; give `check` with it.
    Inside `checkpoint.keeping` a run without a checkpoint of its own is saved by the clock.
    Raises ValueError when stack sizes disagree, when the checkpoint belongs to another run, or for graphs of what
    cannot be captured.
    """
    clock = time.perf_counter()
    bound = None if control is None else control.bound(objective, rule, streams, schedule)
    if bound is not None:
        probes = {**(probes or {}), "control": bound}
        schedule = bound.schedule if schedule is None else product(schedule, bound.schedule)
    moving = State.fresh(start, velocity, rule, streams, begin)
    moving.s = slots(rule, moving, state)
    recorders = {name: recorder(probe, begin, steps, rule.replicas) for name, probe in (probes or {}).items()}
    around = kept()
    if around is not None:
        checkpoint = checkpoint or _around(around, objective, probes)
        budget = min(budget, around.budget or budget)
    plan = Plan(schedule, begin if velocity is None else -1, limit, check)
    keeper = _Keeper(checkpoint, clock)
    given = (steps, begin, given_of(rule), streams.seeds, streams.dtype)
    keeper.resume(moving, recorders, given, (objective, probes or {}, plan))
    if bound is not None and "values." in (saved := recorders["control"].state()):
        bound.hold(saved["values."][-1])
    chunks = (cut_for_graphs if graphs else cut)(objective, moving, rule, streams, plan, budget)
    periods = [steps, *(item.every for item in recorders.values())]
    while not _look(moving, recorders, steps, keeper, chunks):
        end = min(steps, keeper.pause(moving.step, check), *(_next_multiple(moving.step, period) for period in periods))
        for chunk in chunks:
            chunk.advance(moving.step, end)
        moving.step = end
        if progress is not None:
            progress(end, steps)
    records = {k: series for name, item in recorders.items() for k, series in item.series(name).items()}
    return Run(moving.params, moving.velocity, moving.diverged_at, records, moving.step, keeper.seconds(), moving.s)


def _look(
    state: State[P], recorders: Mapping[str, Recorder[P]], steps: int, keeper: _Keeper, chunks: Sequence[Chunk[P]]
) -> bool:
    """Let the probes look that are due, save if it is time, and tell whether the run is over."""
    for chunk in chunks:
        chunk.show()
    over = state.step >= steps
    for item in recorders.values():
        if over or state.step % item.every == 0:
            item.record(state.step, state.params, state.velocity)
    if not over and any(item.finished(state.diverged_at) for item in recorders.values()):
        over = True
        for item in recorders.values():
            item.record(state.step, state.params, state.velocity)
    keeper.keep(state, recorders, over)
    return over


def _next_multiple(step: int, period: int) -> int:
    return (step // period + 1) * period


def _around(around: Keeping, objective: Objective[P], probes: Mapping[str, Probe[P]] | None) -> Checkpoint | None:
    """Return the checkpoint of this call, None where objective or probes remember what no checkpoint would hold."""
    found = around.next()
    forgetful = not any(getattr(item, "remembers", False) for item in (objective, *(probes or {}).values()))
    return found if forgetful else None


class _Keeper:
    """Saves the run now and then, and takes it up again; counts the seconds over all its lives."""

    def __init__(self, checkpoint: Checkpoint | None, clock: float) -> None:
        self.checkpoint, self.clock, self.mark = checkpoint, clock, ""
        self.begun = self.saved = clock
        self.stride, self.paused = 1, clock

    def pause(self, step: int, check: int) -> int:
        """Return the step at which to save, or to look at the clock: only where divergence is looked for anyway."""
        if self.checkpoint is None:
            return sys.maxsize
        if not isinstance(self.checkpoint, Timed):
            return _next_multiple(step, self.checkpoint.every)
        now = time.perf_counter()
        if now - self.paused < self.checkpoint.seconds / 20:  # strides of at most a tenth of the time between saves
            self.stride *= 2
        elif now - self.paused > self.checkpoint.seconds / 10:
            self.stride = max(1, self.stride // 2)
        self.paused = now
        return _next_multiple(step + self.stride - 1, check)

    def seconds(self) -> float:
        """Return the seconds spent so far."""
        return time.perf_counter() - self.clock

    def resume(
        self,
        state: State[P],
        recorders: Mapping[str, Recorder[P]],
        given: tuple[object, ...],
        made_of: tuple[object, ...],
    ) -> None:
        """Fill state and records from the file, if there is one, and if what was given is still the same.

        made_of: what may hold whole data sets, of which a sample is looked at.
        """
        if self.checkpoint is None:
            return
        self.mark = fingerprint(self.checkpoint.label, state.tensors(), *given, fingerprint(*made_of, most=SAMPLE))
        found = self.checkpoint.load(self.mark, state.diverged_at.device)
        if found is None:
            return
        header, saved = found
        state.step = header["step"]
        self.clock -= header["seconds"]
        for name, tensor in state.tensors().items():
            tensor.copy_(saved[name])
        for name, item in recorders.items():
            prefix = f"record.{name}."
            item.restore({k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})

    def due(self, step: int, done: bool) -> bool:
        """Tell whether it is time to save: by steps, or by the clock and at the end of what took a while."""
        checkpoint = self.checkpoint
        if isinstance(checkpoint, Timed):
            now = time.perf_counter()
            return now - self.saved >= checkpoint.seconds or (done and now - self.begun > min(1.0, checkpoint.seconds))
        return done or (checkpoint is not None and step % checkpoint.every == 0)

    def keep(self, state: State[P], recorders: Mapping[str, Recorder[P]], done: bool) -> None:
        """Save when it is time."""
        if self.checkpoint is None or not self.due(state.step, done):
            return
        self.saved = time.perf_counter()
        records = {f"record.{name}.{k}": v for name, item in recorders.items() for k, v in item.state().items()}
        meta = {"step": state.step, "seconds": self.seconds()}
        self.checkpoint.save(self.mark, meta, state.tensors() | records)
