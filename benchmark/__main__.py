"""What capture costs: PYTHON benchmark [--depth 1] [--rounds 5] [--json FILE]

Every figure is a ratio of medians of runs that took turns in this process; on a GPU where there is one, else on
the CPU. Weights are random: they cost the same. --on says what is measured:
  comfyui    what ComfyUI runs; needs COMFYUI_HOST=folder, and ComfyUI's own interpreter
  diffusers  what pipelines of diffusers run; needs diffusers
  plain      the method alone, in a Flux.1 of this repository; needs torch, numpy, Pillow, safetensors, scipy and kornia
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import flux as model_of  # noqa: E402  (makes the pack importable)
import memory  # noqa: E402
import torch  # noqa: E402
import where  # noqa: E402
from afterwards import afterwards  # noqa: E402
from concept_saliency.core import masks  # noqa: E402
from concept_saliency.core.families import BLOCKS  # noqa: E402
from concept_saliency.core.stream import ConceptStream  # noqa: E402
from turns import InTurns, Median, Rows  # noqa: E402

MODULES = {"comfyui": "comfyui", "diffusers": "in_diffusers", "plain": "plain"}
PEAKS = {"plain": None, "captured": "auto", "captured through the first single-stream block": "double and first single",
         "captured through all blocks": "all"}  # how far concepts go


def sampling(flux, rounds: int, tokens: int, concepts=(11,)) -> Rows:
    runs = {"plain": lambda: flux.sample(tokens), "again": lambda: flux.sample(tokens)}
    for count in concepts:
        runs[str(count)] = lambda f=flux.captured(count): f.sample(tokens)
    took = InTurns(rounds, **runs)
    rows = [(f"plain sampling, {tokens} image tokens", took.seconds("plain"), "s a step")]
    rows.append((f"plain / plain, {tokens} image tokens", took.ratio("again"), "the clock's own noise"))
    for count in concepts:
        budget = "1.03" if (tokens, count) == (1024, 11) else ""
        rows.append((f"captured / plain, {tokens} image tokens, {count} concepts", took.ratio(str(count)), budget))
    return rows


def others(flux, rounds: int, tokens: int = 1024) -> Rows:
    """Two other ways to see concepts."""
    import baselines
    ways = {"second attention": baselines.second_attention(flux.captured(11), 17),
            "attention probabilities": baselines.attention_probabilities(flux)}
    took = InTurns(rounds, plain=lambda: flux.sample(tokens), **{name: lambda f=way: f.sample(tokens) for name, way in ways.items()})
    return [(f"{name} / plain, {tokens} image tokens", took.ratio(name), "baseline") for name in ways]


def windows(flux, rounds: int, tokens: int = 256, steps: int = 10) -> Rows:
    last = flux.captured(11, (0.7, 1.0))
    took = InTurns(rounds, plain=lambda: flux.sample(tokens, steps), last=lambda: last.sample(tokens, steps))
    return [(f"captured / plain, last 30% of {steps} steps, {tokens} image tokens", took.ratio("last"), "1.02")]


def image_mode(flux, rounds: int, tokens: int) -> Rows:
    took = InTurns(rounds, plain=lambda: flux.sample(tokens), image=lambda: flux.look_at_picture(tokens))
    return [(f"one pass over a picture / one full pass, {tokens} image tokens", took.ratio("image"), "0.45")]


def farther(flux, rounds: int, tokens: int) -> Rows:
    """Concepts that go on through single-stream blocks."""
    runs = {blocks: lambda f=flux.captured(11, blocks=blocks): f.sample(tokens) for blocks in BLOCKS}
    if hasattr(flux, "look_at_picture"):
        runs |= {f"image, {blocks}": lambda b=blocks: flux.look_at_picture(tokens, b) for blocks in BLOCKS}
    took = InTurns(rounds, plain=lambda: flux.sample(tokens), again=lambda: flux.sample(tokens), **runs)
    rows = [(f"plain / plain, {tokens} image tokens", took.ratio("again"), "the clock's own noise")]
    for name in runs:
        what = "one pass over a picture / one full pass" if name.startswith("image") else "captured / plain"
        rows.append((f"{what}, {tokens} image tokens, blocks: {name.removeprefix('image, ')}", took.ratio(name),
                     "1.05" if name == "double and first single" else ""))
    return rows + [(f"recording, 1024 x 1024, 28 steps, 11 concepts, {layers} layers", 28 * layers * 11 * 64 * 64 * 4 / 1e6, "MB")
                   for layers in (19, 20, 57)]


def live(flux, rounds: int, tokens: int) -> Rows:
    """The heatmaps on the node while sampling."""
    runs = {name: lambda f=one: f.sample(tokens) for name, one in (("off", flux.captured(11)), ("live", flux.captured(11, live=True)))}
    took = InTurns(rounds, **runs, again=runs["off"])
    took_alone = statistics.median(flux.preview(8, 4096, 11))
    return [(f"captured / captured, {tokens} image tokens", took.ratio("again", "off"), "the clock's own noise"),
            (f"captured with live_preview / without, {tokens} image tokens, 11 concepts", took.ratio("live", "off"), ""),
            ("live_preview alone, a step of 1024 x 1024, 11 concepts, 19 layers", 1000 * took_alone, "ms")]


def live_regions(flux, rounds: int, tokens: int, steps: int = 4) -> Rows:
    """Concept Region beside the same steps with one more prompt in a mask that ComfyUI is given."""
    captured = flux.captured(11)
    ways = {"captured": captured, "again": captured, "masked": captured.with_mask(tokens, steps),
            "once": flux.with_region(11, 0), "every": flux.with_region(11, 1)}
    took = InTurns(rounds, **{name: lambda f=one: f.sample(tokens, steps) for name, one in ways.items()})
    what = f"{steps} steps, {tokens} image tokens, 11 concepts"
    rows = [(f"captured / captured, {what}", took.ratio("again", "captured"), "the clock's own noise"),
            (f"one more prompt in a given mask / captured, {what}", took.ratio("masked", "captured"), "ComfyUI's own"),
            (f"Concept Region, update 0 / captured, {what}", took.ratio("once", "captured"), "with its prompt"),
            (f"Concept Region, update 1 / captured, {what}", took.ratio("every", "captured"), "with its prompt"),
            (f"Concept Region, update 0 / one more prompt in a given mask, {what}", took.ratio("once", "masked"), "1.02"),
            (f"Concept Region, update 1 / one more prompt in a given mask, {what}", took.ratio("every", "masked"), "1.02")]
    for name, shaping in (("", masks.Shaping()), (", grown and feathered", masks.Shaping(grow=24, feather=16))):
        alone = flux.regions(20, 4096, 1, shaping)
        rows += [(f"a region{name}, alone, 1024 x 1024, of one concept, 19 layers, step {step} of 20", 1000 * alone[step - 1], "ms")
                 for step in (5, 20)]
    return rows


def erasing(flux, rounds: int, tokens: int) -> Rows:
    """Erase under Mask beside the same inpainting without it."""
    rows = []
    for share in (0.1, 0.3):
        plain = flux.painting(share, False)
        took = InTurns(rounds, plain=lambda: plain.sample(tokens), again=lambda: plain.sample(tokens),
                       erased=lambda f=flux.painting(share, True): f.sample(tokens))
        what = f"a mask of {share:.0%}, {tokens} image tokens"
        rows += [(f"inpainting / inpainting, {what}", took.ratio("again"), "the clock's own noise"),
                 (f"Erase under Mask / inpainting, {what}", took.ratio("erased"), "")]
    return rows


def own_part(flux, rounds: int) -> Rows:
    """What capture itself does in one block, without the model around it: how it grows."""
    kind, (width, heads) = dict(device=flux.device, dtype=model_of.DTYPE), (model_of.WIDTH, model_of.HEADS)
    blocks = flux.naming.blocks(flux.transformer)
    block, one = next(iter(blocks.values() if isinstance(blocks, dict) else blocks)), torch.ones(1, device=flux.device)

    @torch.no_grad()
    def watch(concepts: int, tokens: int):
        k, out = torch.randn(1, heads, tokens, width // heads, **kind), torch.randn(1, tokens, width, **kind)
        vectors = model_of.vectors(concepts).to(**kind)

        def run():
            ConceptStream(flux.naming, flux.transformer, vectors, one, one).watch(block, k, k, out, None)
            flux.finish()

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


def peak(on: str, depth: int, batch: int, tokens: int) -> Rows:
    """Memory at the peak of captured runs over that of a plain one; each in a process of its own, on the device where there is one."""
    figures = []
    for kind in PEAKS:
        command = [sys.executable, __file__, "--on", on, "--peak-of", kind, "--depth", str(depth), "--tokens", str(tokens),
                   "--batch", str(batch)]
        figures.append([float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in range(3)])
    plain, *captured = map(statistics.median, figures)
    place = "device" if torch.cuda.is_available() else "process"
    return [(f"extra {place} memory at peak, {kind}, {tokens} image tokens, 11 concepts", peak - plain, "MB, budget 64")
            for kind, peak in zip(list(PEAKS)[1:], captured)]


def peak_of(kind: str, flux, tokens: int) -> float:
    if (blocks := PEAKS[kind]) is not None:
        flux = flux.captured(11, blocks=blocks)
    flux.sample(64)
    if flux.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        flux.sample(tokens)
        return torch.cuda.max_memory_allocated() / 1e6
    return memory.peak(lambda: flux.sample(tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=list(MODULES), default="comfyui" if "COMFYUI_HOST" in os.environ else "plain",
                        help="comfyui where COMFYUI_HOST is set, else plain")
    parser.add_argument("--depth", type=int, default=1, help="double-stream blocks; twice as many single-stream ones (Flux.1: 19)")
    parser.add_argument("--batch", type=int, default=1, help="pictures at once; growth, floor and afterwards are of one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=4096, help="the largest number of image tokens (4096: 1024 x 1024 pixels)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", nargs="*", metavar="PART",
                        help="some of: sampling large others windows image blocks live regions erase growth floor afterwards peak (all)")
    parser.add_argument("--profile", action="store_true", help="also what a captured step calls beyond a plain one")
    parser.add_argument("--peak-of", choices=list(PEAKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.on == "comfyui" and "COMFYUI_HOST" not in os.environ:
        parser.error("--on comfyui needs COMFYUI_HOST, the folder of a ComfyUI, and its interpreter")
    if options.batch < 1:
        parser.error(f"--batch is {options.batch}, expected one picture or more")
    flux = importlib.import_module(MODULES[options.on]).Flux(options.depth, options.batch)
    if options.peak_of:
        print(peak_of(options.peak_of, flux, options.tokens))
        return
    rounds, few = options.rounds, max(1, options.rounds // 2)
    parts = {
        "sampling": lambda: sampling(flux, rounds, 256) + sampling(flux, rounds, 1024, (1, 5, 32, 11)),
        "large": lambda: sampling(flux, few, options.tokens),
        "others": lambda: others(flux, rounds),
        "windows": lambda: windows(flux, few),
        "image": lambda: image_mode(flux, rounds, 1024),
        "blocks": lambda: farther(flux, rounds, 1024),
        "live": lambda: live(flux, rounds, 1024),
        "regions": lambda: live_regions(flux, few, min(1024, options.tokens)),
        "erase": lambda: erasing(flux, rounds, min(1024, options.tokens)),
        "growth": lambda: own_part(flux, rounds),
        "floor": lambda: where.floor(flux),
        "afterwards": lambda: afterwards(rounds),
        "peak": lambda: peak(options.on, options.depth, options.batch, options.tokens),
    }
    hosted = {"others", "live", "regions", "erase"}
    missing = {"comfyui": set(), "diffusers": {"floor", *hosted}, "plain": {"image", *hosted}}[options.on]
    if unknown := set(options.parts or ()) - (parts.keys() - missing):
        parser.error(f"--parts {' '.join(sorted(unknown))}: on {options.on} there are {' '.join(p for p in parts if p not in missing)}")
    rows = []
    for part in options.parts or [part for part in parts if part not in missing]:
        print(f"measuring: {part}", file=sys.stderr, flush=True)
        rows += parts[part]()
    name = torch.cuda.get_device_name() if flux.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    kind = str(model_of.DTYPE).removeprefix("torch.")
    print(f"\n{name}, torch {torch.__version__}, {options.on}, {options.depth} double and {2 * options.depth} single blocks of width "
          f"{model_of.WIDTH}, {kind}, {model_of.TEXT} text tokens, {options.batch} at once, "
          f"medians of {rounds} and their middle half\n\n| what | figure | |\n|---|---|---|")
    print("\n".join(f"| {what} | {figure if isinstance(figure, Median) else f'{figure:.3f}'} | {note} |" for what, figure, note in rows))
    if options.profile:
        print("\n" + where.operations(flux))
    if options.json:
        named = [{"what": what, "figure": figure, "note": note} | (vars(figure) if isinstance(figure, Median) else {})
                 for what, figure, note in rows]
        options.json.write_text(json.dumps({"machine": name, "torch": torch.__version__, "on": options.on, "depth": options.depth,
                                            "batch": options.batch, "rows": named}, indent=1))


if __name__ == "__main__":
    main()
