"""Where the time of capture goes: one block's look, operation by operation, against what it cannot do without."""

from __future__ import annotations

import statistics
import time

import flux
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import ProfilerActivity, profile

from concept_saliency.core.families.flux1 import comfyui
from concept_saliency.core.stream import ConceptStream


def milliseconds(run, rounds: int = 15) -> float:
    """The median, after warming up."""
    times = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        run()
        if flux.DEVICE.type == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


@torch.no_grad()
def floor(model, concepts: int = 17, tokens: int = 1024) -> list[tuple[str, float, str]]:
    """One block's look, and its parts that no implementation can leave out: the text stream's weights read once more
    for the concept tokens, attention of C x (C + N), and C x N products."""
    transformer, width, heads = model.model.diffusion_model, flux.WIDTH, flux.HEADS
    block, kind = transformer.double_blocks[0], dict(device=flux.DEVICE, dtype=torch.bfloat16)
    q, k = (torch.randn(1, heads, n, width // heads, **kind) for n in (concepts, tokens))
    both, out, rows = torch.cat((q, k), dim=2), torch.randn(1, tokens, width, **kind), torch.randn(1, concepts, width, **kind)
    vectors, one = torch.randn(1, concepts, 4096, **kind), torch.ones(1, device=flux.DEVICE)
    stream = ConceptStream(comfyui, transformer, vectors, one, one)
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

    parts = {"the text stream's weights": milliseconds(weights),
             "attention": milliseconds(lambda: scaled_dot_product_attention(q, both, both)),
             "products": milliseconds(lambda: torch.bmm(rows, out.transpose(1, 2)))}
    whole = milliseconds(look)
    size = sum(p.numel() for m in (block.txt_mod, block.txt_attn, block.txt_mlp) for p in m.parameters()) * 2 / 1e6
    found = [(f"one block's look, {concepts} concepts, {tokens} image tokens", whole, "ms")]
    found += [(f"  of which {name}" + (f", {size:.0f} MB" if "weights" in name else ""), value, "ms") for name, value in parts.items()]
    return [*found, ("  and everything else", whole - sum(parts.values()), "ms"), ("  look / floor", whole / sum(parts.values()), "")]


def operations(model, tokens: int = 1024) -> str:
    """What a captured step calls beyond a plain one: torch.profiler's own table of the difference."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (flux.DEVICE.type == "cuda")
    totals = []
    for one in (model, flux.capture(model, 11)[0]):
        flux.sample(one, 64)
        with profile(activities=activities) as seen:
            flux.sample(one, tokens)
        totals.append({e.key: (e.count, (e.self_device_time_total or e.self_cpu_time_total) / 1000) for e in seen.key_averages()})
    plain, captured = totals
    rows = [(name, count - plain.get(name, (0, 0))[0], spent - plain.get(name, (0, 0))[1]) for name, (count, spent) in captured.items()]
    rows = sorted((r for r in rows if r[1]), key=lambda r: -r[2])[:14]
    return "| operation | more calls | more ms |\n|---|---|---|\n" + "\n".join(f"| {n} | {c} | {t:.2f} |" for n, c, t in rows)
