"""Which calls of a transformer make one picture, which of them are recorded, and what was recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor

from ..core.recording import SPACES, Recorder, Recording
from ..core.saliency import Saliency, saliency

_UNKNOWN_STEPS = 50  # assumed where no scheduler tells


class Run:
    """One run of a pipeline, while it lasts and after.

    scheduler: of the pipeline, if there is one; it begins every run with timesteps of its own. Without it the
    noise falls evenly from `level`, the first, to 0. size: pictures, rows and columns of tokens. tokens: the
    first call's hidden_states. recorder: a Recorder but for its schedule. window: shares of the run, 0 to 1,
    between which is recorded.
    """

    def __init__(self, scheduler, level: float, size: tuple[int, ...], tokens: Tensor, recorder: Callable[..., Recorder],
                 window: tuple[float, float]):
        self.timesteps, self.size, self.tokens, self.window = _timesteps(scheduler), size, tokens, window
        levels = [] if self.timesteps is None else [t / 1000 for t in self.timesteps.tolist()]  # pipelines divide by 1000, too
        self.levels = levels if any(_same(level, known) for known in levels) else []
        self.level = level = self.exact(level)
        schedule = [*(known for known in self.levels if known <= level), 0.0]  # existing pictures begin half-way
        if not self.levels:
            schedule = torch.linspace(level, 0, _UNKNOWN_STEPS + 1).tolist()
        self.recorder: Recorder = recorder(schedule=schedule)
        self.seen: set[float] = set()

    def exact(self, level: float) -> float:
        """The scheduler's own value for a noise level that may have been rounded to half precision."""
        nearest = min(self.levels, key=lambda known: abs(known - level), default=level)
        return nearest if _same(level, nearest) else level

    def includes(self, scheduler, level: float, size: tuple[int, ...], tokens: Tensor) -> bool:
        """Whether a call belongs to this run: noise never rises within one."""
        level = self.exact(level)
        if _timesteps(scheduler) is not self.timesteps or size != self.size or level > self.level:
            return False
        return level < self.level or bool(self.levels) or torch.equal(tokens, self.tokens)

    def wants(self, level: float, tokens: Tensor) -> bool:
        """Whether this call is to be recorded. A second one at one noise level is the negative prompt's or a corrector's."""
        self.level, self.tokens = level, tokens
        first = level not in self.seen
        self.seen.add(level)
        return first and self.window[0] <= self.recorder.progress(level) <= self.window[1] and self.recorder.wants(level)


class Seen(Recording):
    """A recording that can be asked for its maps."""

    def saliency(self, layers: str = "auto", start: float = 0.0, end: float = 1.0, temperature: float = 0.0) -> Saliency:
        """Saliency maps: see core.saliency.saliency."""
        return saliency(self, layers, start, end, temperature)


class Recordings(Sequence[Seen]):
    """One Recording for every run of the pipeline, in their order; the last may still go on.

    Each is put together when it is asked for. space: which of the recorded spaces they are in.
    """

    def __init__(self, runs: list[Run] | None = None, space: str = SPACES[0]):
        self.runs, self.space = [] if runs is None else runs, space

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, index: int) -> Seen: ...

    @overload
    def __getitem__(self, index: slice) -> Recordings: ...

    def __getitem__(self, index: int | slice) -> Seen | Recordings:
        """One run's, or those of several. Raises IndexError beyond the last run, ValueError when nothing was recorded of a run."""
        if isinstance(index, slice):
            return Recordings(self.runs[index], self.space)
        found = self.runs[index].recorder.finish()
        if not found:
            raise ValueError(f"Nothing was recorded of run {index}: no step lay between start and end, or blocks were skipped "
                             "in all of them. Widen start and end, or switch step caches off.")
        if self.space not in found:
            raise ValueError(f"The space '{self.space}' was not recorded, only {', '.join(found)}. "
                             "For cross-attention, give capture(..., cross_attention=True).")
        return Seen(**vars(found[self.space]))

    @property
    def latest(self) -> Seen:
        """The last run's. Raises ValueError when there is none."""
        if not self.runs:
            raise ValueError("Nothing has been recorded yet. Run the pipeline within 'with capture(pipe, ...)'.")
        return self[-1]

    def in_space(self, space: str) -> Recordings:
        """The same runs in "output" or "cross-attention"."""
        if space not in SPACES:
            raise ValueError(f"space is '{space}', expected one of {', '.join(SPACES)}")
        return Recordings(self.runs, space)


def _timesteps(scheduler) -> Tensor | None:
    return None if getattr(scheduler, "num_inference_steps", None) is None else scheduler.timesteps


def _same(level: float, other: float) -> bool:
    return abs(level - other) <= other / 128  # bfloat16 keeps eight bits
