"""Runs that are compared: figures as rows, and their times in turns."""

from __future__ import annotations

import statistics
import time

Rows = list[tuple[str, float, str]]  # what, figure, unit or budget


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

    def seconds(self, name: str) -> float:
        return statistics.median(self.times[name])

    def ratio(self, name: str, to: str = "plain") -> float:
        """The median of what one took to what the other took in the same turn."""
        return statistics.median(a / b for a, b in zip(self.times[name], self.times[to]))
