"""What capture costs: COMFYUI_HOST=folder PYTHON benchmark [--depth 1] [--rounds 5] [--json FILE], with ComfyUI's own interpreter.

Every figure is a ratio of medians of runs that took turns in this process; on a GPU where there is one, else on
the CPU. Weights are random: they cost the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import flux  # noqa: E402  (sets up ComfyUI; before torch)
import baselines  # noqa: E402
import torch  # noqa: E402
import where  # noqa: E402
from concept_saliency.core import masks  # noqa: E402
from concept_saliency.core.families import flux1  # noqa: E402
from concept_saliency.core.families.flux1 import comfyui  # noqa: E402
from concept_saliency.core.recording import Recording  # noqa: E402
from concept_saliency.core.saliency import saliency  # noqa: E402
from concept_saliency.core.stream import ConceptStream  # noqa: E402

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


def sampling(model, rounds: int, tokens: int, concepts=(11,), compare=False) -> Rows:
    runs = {"plain": lambda: flux.sample(model, tokens), "again": lambda: flux.sample(model, tokens)}
    for count in concepts:
        captured = flux.capture(model, count)[0]
        runs[str(count)] = lambda m=captured: flux.sample(m, tokens)
    if compare:
        runs["second attention"] = lambda m=baselines.second_attention(captured, 17): flux.sample(m, tokens)
        runs["attention probabilities"] = lambda m=baselines.attention_probabilities(model): flux.sample(m, tokens)
    took = InTurns(rounds, **runs)
    rows = [(f"plain sampling, {tokens} image tokens", took.seconds("plain"), "s a step")]
    rows.append((f"plain / plain, {tokens} image tokens", took.ratio("again"), "the clock's own noise"))
    for count in concepts:
        budget = "1.03" if (tokens, count) == (1024, 11) else ""
        rows.append((f"captured / plain, {tokens} image tokens, {count} concepts", took.ratio(str(count)), budget))
    if compare:
        for name in ("second attention", "attention probabilities"):
            rows.append((f"{name} / plain, {tokens} image tokens", took.ratio(name), "baseline"))
    return rows


def windows(model, rounds: int, tokens: int = 256, steps: int = 10) -> Rows:
    last = flux.capture(model, 11, (0.7, 1.0))[0]
    took = InTurns(rounds, plain=lambda: flux.sample(model, tokens, steps), last=lambda: flux.sample(last, tokens, steps))
    return [(f"captured / plain, last 30% of {steps} steps, {tokens} image tokens", took.ratio("last"), "1.02")]


def image_mode(model, rounds: int, tokens: int) -> Rows:
    took = InTurns(rounds, plain=lambda: flux.sample(model, tokens), image=lambda: flux.look_at_picture(model, tokens))
    return [(f"one pass over a picture / one full pass, {tokens} image tokens", took.ratio("image"), "0.45")]


def own_part(model, rounds: int) -> Rows:
    """What capture itself does in one block, without the model around it: how it grows."""
    transformer, device = model.model.diffusion_model, flux.DEVICE
    dtype, d = torch.bfloat16, flux.WIDTH // flux.HEADS

    @torch.no_grad()
    def watch(concepts: int, tokens: int):
        k = torch.randn(1, flux.HEADS, tokens, d, device=device, dtype=dtype)
        out = torch.randn(1, tokens, flux.WIDTH, device=device, dtype=dtype)
        vectors = torch.randn(1, concepts, 4096, device=device, dtype=dtype)

        def run():
            stream = ConceptStream(comfyui, transformer, vectors, torch.ones(1, device=device), torch.ones(1, device=device))
            stream.watch(transformer.double_blocks[0], k, k, out, None)

        return run

    with torch.no_grad():
        by_concepts = InTurns(rounds, **{str(c): watch(c, 1024) for c in (1, 2, 4, 8, 16, 32)})
        by_tokens = InTurns(rounds, **{str(n): watch(17, n) for n in (256, 1024, 4096, 16384)})
    by_concepts, by_tokens = ({name: took.seconds(name) for name in took.times} for took in (by_concepts, by_tokens))
    rows = [(f"one block's capture, {c} concepts, 1024 image tokens", 1000 * s, "ms") for c, s in by_concepts.items()]
    rows += [(f"one block's capture, 17 concepts, {n} image tokens", 1000 * s, "ms") for n, s in by_tokens.items()]
    for what, times in (("concepts", by_concepts), ("image tokens", by_tokens)):
        x, y = torch.tensor([float(k) for k in times]), torch.tensor(list(times.values()))
        slope = torch.linalg.lstsq(torch.stack((x.log(), torch.ones_like(x)), 1)[-2:], y.log()[-2:, None]).solution[0, 0]
        rows.append((f"exponent between the two largest numbers of {what}", float(slope), "1 is linear"))
    return rows


def afterwards(rounds: int) -> Rows:
    """Saliency and a mask from a recording of 28 steps, 19 layers, 11 concepts."""
    rows = []
    for size in (512, 1024, 2048):
        grid = size // 16
        scores = torch.randn(28, 19, 1, 11, grid, grid)
        levels = torch.linspace(1, 0, 29).tolist()
        made = Recording(tuple(f"c{i}" for i in range(5)), flux.CONTRAST, scores, tuple(levels[:-1]), tuple(1 - x for x in levels[:-1]),
                         tuple(range(19)), 19, "output", "flux1", flux1.DEFAULTS, (size, size))
        maps, picture = saliency(made), torch.rand(1, size, size, 3)
        took = InTurns(rounds, saliency=lambda: saliency(made), mask=lambda: masks.mask(maps, "c0", "argmax"),
                           refined=lambda: masks.mask(maps, "c0", "argmax", image=picture))
        budget = "0.2 s" if size == 1024 else ""
        rows += [(f"{name} from a recording, {size} x {size}", took.seconds(name), budget) for name in took.times]
        rows.append((f"recording, {size} x {size}, 11 concepts", scores.numel() * 4 / 1e6, "MB" + (", budget 100" if size == 1024 else "")))
    return rows


def peak(depth: int, tokens: int) -> Rows:
    """Memory at the peak of a captured run over that of a plain one; each in a process of its own, on the device where there is one."""
    figures = []
    for kind in ("plain", "captured"):
        command = [sys.executable, __file__, "--peak-of", kind, "--depth", str(depth), "--tokens", str(tokens)]
        figures.append([float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in range(3)])
    extra = statistics.median(figures[1]) - statistics.median(figures[0])
    where = "device" if flux.DEVICE.type == "cuda" else "process"
    return [(f"extra {where} memory at peak, {tokens} image tokens, 11 concepts", extra, "MB, budget 64")]


def peak_of(kind: str, depth: int, tokens: int) -> float:
    model = flux.build(depth)
    model = flux.capture(model, 11)[0] if kind == "captured" else model
    flux.sample(model, 64)
    if flux.DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        flux.sample(model, tokens)
        return torch.cuda.max_memory_allocated() / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the process's peak begins anew
    flux.sample(model, tokens)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=1, help="double-stream blocks; twice as many single-stream ones (Flux.1: 19)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4096, help="the largest number of image tokens (4096: 1024 x 1024 pixels)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="*", metavar="PART",
                        help="some of: sampling large windows image growth floor afterwards peak (all of them)")
    parser.add_argument("--profile", action="store_true", help="also what a captured step calls beyond a plain one")
    parser.add_argument("--peak-of", choices=["plain", "captured"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(peak_of(options.peak_of, options.depth, options.tokens))
        return
    model, rounds, few = flux.build(options.depth), options.rounds, max(1, options.rounds // 2)
    parts = {
        "sampling": lambda: sampling(model, rounds, 256) + sampling(model, rounds, 1024, (1, 5, 32, 11), compare=True),
        "large": lambda: sampling(model, few, options.tokens),
        "windows": lambda: windows(model, few),
        "image": lambda: image_mode(model, rounds, 1024),
        "growth": lambda: own_part(model, rounds),
        "floor": lambda: where.floor(model),
        "afterwards": lambda: afterwards(rounds),
        "peak": lambda: peak(options.depth, options.tokens),
    }
    rows = []
    for part in options.parts or parts:
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        rows += parts[part]()
    name = torch.cuda.get_device_name() if flux.DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"\n{name}, torch {torch.__version__}, {options.depth} double and {2 * options.depth} single blocks of width {flux.WIDTH}, bf16, "
          f"{flux.TEXT} text tokens, medians of {rounds}\n\n| what | figure | |\n|---|---|---|")
    print("\n".join(f"| {what} | {figure:.3f} | {note} |" for what, figure, note in rows))
    if options.profile:
        print("\n" + where.operations(model))
    if options.json:
        options.json.write_text(json.dumps({"machine": name, "torch": torch.__version__, "depth": options.depth,
                                            "rows": [dict(zip(("what", "figure", "note"), row)) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
