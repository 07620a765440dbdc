"""The method, slowly and plainly, in float64, straight from the paper's equations; it shares no code with the pack.

Every block computes one attention over [text; concepts; picture; references] with a mask: text, picture and references
see no concept, concepts see one another and the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import gelu, layer_norm, silu


@dataclass(frozen=True)
class DoubleStream:
    """What a family of double-stream models does in its own way, by the published descriptions of its model.

    patch: latent values on a token's side. text_axes: along which text tokens are counted. concept_at: the concepts' position
    there. behind_text: whether the picture's positions begin after the text's, and after the first on the first axis.
    reference_scale: how far references stand from one another on the first axis.
    global_modulation: one for all blocks. distilled: modulations come of a network of their own. gated: SwiGLU in place of GELU.
    """

    patch: int
    text_axes: tuple[int, ...] = ()
    concept_at: int = 0
    behind_text: bool = False
    reference_scale: float = 1.0
    global_modulation: bool = False
    gated: bool = False
    distilled: bool = False

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, references=(), singles=0):
        """Scores by space, L x C x N, of one picture, of the double-stream blocks and `singles` single-stream blocks after them.

        weights: in Black Forest Labs' naming. pooled: for models that take it. latent: channels x h x w; references: the same.
        text: T x D_text. concepts: C x D_text.
        """
        w = {name.replace(".scale", ".weight"): value.double() for name, value in weights.items()}
        latent, text, concepts = latent.double(), text.double(), concepts.double()

        def linear(name, x):
            return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)

        def embedded(name, value):
            angle = 1000 * float(value) * 10_000 ** -(torch.arange(128).double() / 128)
            return linear(f"{name}.out_layer", silu(linear(f"{name}.in_layer", torch.cat((angle.cos(), angle.sin())))))

        prompt_vec = torch.zeros(1) if self.distilled else embedded("time_in", t)
        if guidance is not None and "guidance_in.in_layer.weight" in w:
            prompt_vec = prompt_vec + embedded("guidance_in", guidance)
        concept_vec = prompt_vec
        if "vector_in.in_layer.weight" in w:
            def vector(y):
                return linear("vector_in.out_layer", silu(linear("vector_in.in_layer", y)))
            prompt_vec, concept_vec = prompt_vec + vector(pooled.double()), concept_vec + vector(torch.zeros_like(pooled).double())

        def waves(value, half):
            """Angles of up to 343 000 in float32, as the model was trained: what it rounds them to is part of it."""
            angle = 1000 * torch.tensor(float(value)) * torch.exp(-math.log(10_000) * torch.arange(half) / half)
            return torch.cat((angle.cos(), angle.sin())).double()

        if self.distilled:
            x = torch.stack([torch.cat((waves(t, 8), waves(guidance, 8), waves(i, 16))) for i in range(344)])
            net = "distilled_guidance_layer"
            x = linear(f"{net}.in_proj", x)
            for i in range(sum(name.startswith(f"{net}.norms.") for name in w)):
                normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{net}.norms.{i}.weight"]
                x = x + linear(f"{net}.layers.{i}.out_layer", silu(linear(f"{net}.layers.{i}.in_layer", normed)))
            made = linear(f"{net}.out_proj", x)
            made_single = made[:3 * config["depth_single_blocks"]].split(3)
            made = made[3 * config["depth_single_blocks"]:].split(6)  # img of all blocks, then txt of all blocks

        if "txt_norm.weight" in w:
            text, concepts = (x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w["txt_norm.weight"] for x in (text, concepts))
        axes, pictures = config["axes_dim"], [latent, *(reference.double() for reference in references)]
        own = self.tokens(latent).shape[0]
        if "img_in_patch.weight" in w:  # a convolution that steps from token to token
            w["img_in.weight"], w["img_in.bias"] = w["img_in_patch.weight"].flatten(1), w["img_in_patch.bias"]
        streams = [linear("txt_in", text), linear("txt_in", concepts), linear("img_in", torch.cat([self.tokens(p) for p in pictures]))]
        counts = [len(stream) for stream in streams]
        ids = [torch.zeros(n, len(axes)).double() for n in counts[:2]]
        for axis in self.text_axes:
            ids[0][:, axis], ids[1][:, axis] = torch.arange(counts[0]), self.concept_at
        start = torch.tensor([1, counts[0], counts[0]]) * self.behind_text
        for number, picture in enumerate(pictures):
            h, width = (-(-side // self.patch) for side in picture.shape[1:])
            place = torch.zeros(h, width, len(axes)).double()
            place[..., 0], place[..., 1], place[..., 2] = number * self.reference_scale, torch.arange(h)[:, None], torch.arange(width)
            place[..., :3] += start
            ids.append(place.flatten(0, 1))
        angles = torch.cat([torch.cat(ids)[:, i, None] * config["theta"] ** -(torch.arange(0, d, 2).double() / d)
                            for i, d in enumerate(axes)], dim=1)
        turn = torch.polar(torch.ones_like(angles), angles)

        is_concept = torch.zeros(sum(counts), dtype=torch.bool)
        is_concept[counts[0]:sum(counts[:2])] = True
        may_see = (~is_concept).repeat(len(is_concept), 1)
        may_see[is_concept] = False
        may_see[is_concept, counts[0]:sum(counts[:2]) + own] = True

        found = {"output": [], "cross-attention": []}
        own_keys = slice(sum(counts[:2]), sum(counts[:2]) + own)

        def split(qkv, name):
            """Queries and keys, normalised, and values: T x heads x d."""
            q, k, v = (part.unflatten(-1, (config["num_heads"], -1)) for part in qkv.chunk(3, dim=-1))
            q, k = (part / (part.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.{norm}_norm.weight"]
                    for part, norm in ((q, "query"), (k, "key")))
            return q, k, v

        def attention(q, k, v):
            """Of all tokens; writes down the scores."""
            found["cross-attention"].append(torch.einsum("chd,nhd->cn", q[is_concept], k[own_keys]))
            q, k = (torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn[:, None] for x in (q, k))
            q, k = (torch.view_as_real(x).flatten(-2) for x in (q, k))
            logits = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
            seen = logits.masked_fill(~may_see, -torch.inf).softmax(-1)
            out = torch.einsum("hqk,khd->qhd", seen, v).flatten(1)
            found["output"].append(out[is_concept] @ out[own_keys].T)
            return out

        separate = "double_blocks.0.txt_mlp.gate_proj.weight" in w  # Ovis-Image's gate: a layer of its own, and the second half elsewhere

        def activated(hidden):
            if not self.gated:
                return gelu(hidden, approximate="tanh")
            gate, rest = reversed(hidden.chunk(2, -1)) if separate else hidden.chunk(2, -1)
            return silu(gate) * rest

        def mlp(name, x):
            if separate:
                return linear(f"{name}.down_proj", silu(linear(f"{name}.gate_proj", x)) * linear(f"{name}.up_proj", x))
            return linear(f"{name}.2", activated(linear(f"{name}.0", x)))

        for i in range(config["depth"]):
            name, parts, mods = f"double_blocks.{i}", [], []
            for kind, x, vec in zip(("txt", "txt", "img"), streams, (prompt_vec, concept_vec, prompt_vec)):
                mod = f"double_stream_modulation_{kind}.lin" if self.global_modulation else f"{name}.{kind}_mod.lin"
                shift1, scale1, *rest = made[i + config["depth"] * (kind == "txt")] if self.distilled else linear(mod, silu(vec)).chunk(6)
                mods.append(rest)
                qkv = linear(f"{name}.{kind}_attn.qkv", layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale1) + shift1)
                parts.append(split(qkv, f"{name}.{kind}_attn.norm"))
            outs = attention(*map(torch.cat, zip(*parts))).split(counts)
            after = []
            for kind, x, out, (gate1, shift2, scale2, gate2) in zip(("txt", "txt", "img"), streams, outs, mods):
                x = x + gate1 * linear(f"{name}.{kind}_attn.proj", out)
                after.append(x + gate2 * mlp(f"{name}.{kind}_mlp", layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale2) + shift2))
            streams = after
        x = torch.cat(streams)
        for i in range(singles):
            name = f"single_blocks.{i}"
            mod = "single_stream_modulation.lin" if self.global_modulation else f"{name}.modulation.lin"
            made_rows = [made_single[i] if self.distilled else linear(mod, silu(vec)).unflatten(0, (3, -1))
                         for vec in (prompt_vec, concept_vec)]
            shift, scale, gate = torch.where(is_concept[:, None], made_rows[1][:, None], made_rows[0][:, None])
            both = linear(f"{name}.linear1", layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
            out = attention(*split(both[:, :3 * x.shape[1]], f"{name}.norm"))
            x = x + gate * linear(f"{name}.linear2", torch.cat((out, activated(both[:, 3 * x.shape[1]:])), dim=1))
        return {space: torch.stack(scores) for space, scores in found.items()}

    def tokens(self, latent):
        """channels x h x w -> N x channels * patch * patch; beyond the edge it goes on from the other side, as ComfyUI pads."""
        rows, columns = (torch.arange(-(-side // self.patch) * self.patch) % side for side in latent.shape[1:])
        latent = latent[:, rows][:, :, columns]
        patches = latent.unfold(1, self.patch, self.patch).unfold(2, self.patch, self.patch)
        return patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
