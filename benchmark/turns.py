"""Runs that are compared: figures as rows, and their times in turns."""

from __future__ import annotations

import statistics
import time

Rows = list[tuple[str, float, str]]  # what, figure, unit or budget


class Median(float):
    """A median that knows between what values the middle half of those behind it lies."""

    low: float
    high: float

    def __new__(cls, values: list[float]):
        one = super().__new__(cls, statistics.median(values))
        one.low, _, one.high = statistics.quantiles(values * 2 if len(values) == 1 else values, n=4, method="inclusive")
        return one

    def __str__(self) -> str:
        return f"{self:.3f} ({self.low:.3f} to {self.high:.3f})"


class InTurns:
    """Runs that take turns, after one of each to warm up; every other turn in the opposite order."""

    def __init__(self, rounds: int, **runs):
        self.times = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name in list(runs)[::-1 if turn % 2 else 1]:
                start = time.perf_counter()
                runs[name]()
                if turn:
                    self.times[name].append(time.perf_counter() - start)

    def seconds(self, name: str) -> Median:
        return Median(self.times[name])

    def ratio(self, name: str, to: str = "plain") -> Median:
        """What one took to what the other took in the same turn."""
        return Median([a / b for a, b in zip(self.times[name], self.times[to])])
