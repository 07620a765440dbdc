"""Where the time of capture goes: one block's look, operation by operation, against what it cannot do without."""

from __future__ import annotations

import statistics
import time

import torch
from concept_saliency.core.stream import ConceptStream
from flux import DTYPE, HEADS, WIDTH, vectors
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

DRIVER = ("cudaLaunch", "cuLaunch", "cudaStreamSync", "cudaDeviceSync", "cudaEventSync", "cudaMemcpy")  # kernels begun, device waited for


def milliseconds(flux, run, rounds: int = 15) -> float:
    """The median, after warming up."""
    times = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        run()
        flux.finish()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


@torch.no_grad()
def floor(flux, concepts: int = 17, tokens: int = 1024) -> list[tuple[str, float, str]]:
    """One block's look, and its parts that no implementation can leave out: the text stream's weights read once more
    for the concept tokens, attention of C x (C + N), and C x N products. For Black Forest Labs' naming."""
    transformer, kind = flux.transformer, dict(device=flux.device, dtype=DTYPE)
    block, one = transformer.double_blocks[0], torch.ones(1, device=flux.device)
    q, k = (torch.randn(1, HEADS, n, WIDTH // HEADS, **kind) for n in (concepts, tokens))
    both, out, rows = torch.cat((q, k), dim=2), torch.randn(1, tokens, WIDTH, **kind), torch.randn(1, concepts, WIDTH, **kind)
    stream = ConceptStream(flux.naming, transformer, vectors(concepts).to(**kind), one, one)
    stream.depth, states = 2, stream.states

    def look():
        stream.states = states
        stream.scores["output"].clear()
        stream.watch(block, k, k, out, None)

    def weights():
        block.txt_mod.lin(stream.modulation)
        block.txt_attn.qkv(rows)
        block.txt_attn.proj(rows)
        block.txt_mlp(rows)

    parts = {"the text stream's weights": milliseconds(flux, weights),
             "attention": milliseconds(flux, lambda: scaled_dot_product_attention(q, both, both)),
             "products": milliseconds(flux, lambda: torch.bmm(rows, out.transpose(1, 2)))}
    whole = milliseconds(flux, look)
    size = sum(p.numel() for m in (block.txt_mod, block.txt_attn, block.txt_mlp) for p in m.parameters()) * 2 / 1e6
    found = [(f"one block's look, {concepts} concepts, {tokens} image tokens", whole, "ms")]
    found += [(f"  of which {name}" + (f", {size:.0f} MB" if "weights" in name else ""), value, "ms") for name, value in parts.items()]
    return [*found, ("  and everything else", whole - sum(parts.values()), "ms"), ("  look / floor", whole / sum(parts.values()), "")]


def operations(flux, tokens: int = 1024) -> str:
    """What a captured step calls beyond a plain one: torch.profiler's own table of the difference."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (flux.device.type == "cuda")
    totals = []
    for one in (flux, flux.captured(11)):
        one.sample(64)
        with profile(activities=activities) as seen:
            one.sample(tokens)
        totals.append({e.key: (e.count, (e.self_device_time_total or e.self_cpu_time_total) / 1000) for e in seen.key_averages()})
    plain, captured = totals
    rows = [(name, count - plain.get(name, (0, 0))[0], spent - plain.get(name, (0, 0))[1]) for name, (count, spent) in captured.items()]
    rows = sorted((r for r in rows if r[1]), key=lambda r: -r[2])
    rows = rows[:14] + [r for r in rows[14:] if r[0].startswith(DRIVER)]
    return "| operation | more calls | more ms |\n|---|---|---|\n" + "\n".join(f"| {n} | {c} | {t:.2f} |" for n, c, t in rows)
