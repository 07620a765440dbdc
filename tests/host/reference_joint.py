"""The method, slowly and plainly, in float64, for models with separate text and image weights that are not Flux's.

Straight from the paper's equations and the published descriptions of the models; no code is shared with the pack. Every block
computes one attention over [text; concepts; picture; references] with a mask: text, picture and references see no concept,
concepts see one another and the picture.
"""

from __future__ import annotations


import torch
from torch.nn.functional import gelu, layer_norm, silu


def tokens(latent, patch=2):
    """channels x h x w -> N x channels * patch * patch; beyond the edge it goes on from the other side, as ComfyUI pads."""
    rows, columns = (torch.arange(-(-side // patch) * patch) % side for side in latent.shape[1:])
    patches = latent[:, rows][:, :, columns].unfold(1, patch, patch).unfold(2, patch, patch)
    return patches.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)


def waves(t, theta=10_000):
    """256 cosines and sines of 1000 t."""
    angle = 1000 * float(t) * theta ** -(torch.arange(128).double() / 128)
    return torch.cat((angle.cos(), angle.sin()))


def rms(x, weight):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def normed(x, shift, scale):
    return layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Weights:
    """Layers by name, in float64."""

    def __init__(self, weights):
        self.w = {name: value.double() for name, value in weights.items()}

    def __contains__(self, name):
        return name in self.w

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def mlp(self, first, activation, second, x):
        return self.linear(second, activation(self.linear(first, x)))


def attend(q, k, v, own):
    """Queries, keys and values of [text, concepts, picture with references], each T x heads x d -> outputs of the three, T x D."""
    counts = [len(part) for part in q]
    is_concept = torch.zeros(sum(counts), dtype=torch.bool)
    is_concept[counts[0]:sum(counts[:2])] = True
    may_see = (~is_concept).repeat(len(is_concept), 1)
    may_see[is_concept] = False
    may_see[is_concept, counts[0]:sum(counts[:2]) + own] = True
    logits = torch.einsum("qhd,khd->hqk", torch.cat(q), torch.cat(k)) / q[0].shape[-1] ** 0.5
    seen = logits.masked_fill(~may_see, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", seen, torch.cat(v)).flatten(1).split(counts)


class Found:
    """Scores by space, of the blocks seen so far."""

    def __init__(self):
        self.spaces = {"output": [], "cross-attention": []}

    def add(self, queries, keys, outs, own):
        """Queries and keys before RoPE."""
        self.spaces["output"].append(outs[1] @ outs[2][:own].T)
        self.spaces["cross-attention"].append(torch.einsum("chd,nhd->cn", queries[1], keys[2][:own]))

    def scores(self):
        return {space: torch.stack(scores) for space, scores in self.spaces.items()}


class QwenImage:
    """Qwen-Image (technical report, 2508.02324): MMDiT with text along the diagonal behind the picture, which is centred."""

    patch = 2

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, references=()):
        """Scores by space, L x C x N, of one picture. latent, references: channels x 1 x h x w. text: T x D_text. concepts: C x D_text."""
        w, heads = Weights(weights), config["num_attention_heads"]
        vec = silu(w.mlp("time_text_embed.timestep_embedder.linear_1", silu, "time_text_embed.timestep_embedder.linear_2", waves(t)))
        pictures = [picture[:, 0].double() for picture in (latent, *references)]
        own = len(tokens(pictures[0]))
        streams = [w.linear("txt_in", rms(x.double(), w.w["txt_norm.weight"])) for x in (text, concepts)]
        streams.append(w.linear("img_in", torch.cat([tokens(picture) for picture in pictures])))

        grids = [[-(-side // 2) for side in picture.shape[1:]] for picture in pictures]
        behind = max(side // 2 for side in grids[0])
        places = [(behind + torch.arange(len(text)))[:, None].expand(-1, 3), torch.full((len(concepts), 3), behind), torch.cat([
            torch.cartesian_prod(torch.tensor([number]), torch.arange(h) - h // 2, torch.arange(columns) - columns // 2)
            for number, (h, columns) in enumerate(grids)])]
        turns = []
        for place in places:
            angles = torch.cat([place[:, i, None].double() * 10_000 ** -(torch.arange(0, d, 2).double() / d)
                                for i, d in enumerate(config["axes_dims_rope"])], dim=1)
            turns.append(torch.polar(torch.ones_like(angles), angles)[:, None])

        def turned(parts):
            return [torch.view_as_real(torch.view_as_complex(part.contiguous().unflatten(-1, (-1, 2))) * turn).flatten(-2)
                    for part, turn in zip(parts, turns)]

        found = Found()
        for i in range(config["num_layers"]):
            block = f"transformer_blocks.{i}"
            q, k, v, mods = [], [], [], []
            for kind, added, x in zip(("txt", "txt", "img"), (True, True, False), streams):
                mods.append(w.linear(f"{block}.{kind}_mod.1", vec).chunk(6))
                y = normed(x, *mods[-1][:2])
                names = ("add_q_proj", "add_k_proj", "add_v_proj") if added else ("to_q", "to_k", "to_v")
                parts = [w.linear(f"{block}.attn.{name}", y).unflatten(-1, (heads, -1)) for name in names]
                for part, into, letter in zip(parts, (q, k), "qk"):
                    into.append(rms(part, w.w[f"{block}.attn.norm_{'added_' * added}{letter}.weight"]))
                v.append(parts[2])
            outs = attend(turned(q), turned(k), v, own)
            found.add(q, k, outs, own)
            after = []
            for kind, name, x, out, (_, _, gate1, shift2, scale2, gate2) in zip(
                    ("txt", "txt", "img"), ("to_add_out", "to_add_out", "to_out.0"), streams, outs, mods):
                x = x + gate1 * w.linear(f"{block}.attn.{name}", out)
                hidden = w.mlp(f"{block}.{kind}_mlp.net.0.proj", lambda y: gelu(y, approximate="tanh"), f"{block}.{kind}_mlp.net.2",
                               normed(x, shift2, scale2))
                after.append(x + gate2 * hidden)
            streams = after
        return found.scores()


class SD3:
    """SD3 (2403.03206) and SD3.5: MMDiT with a learnt embedding of places in place of RoPE; in SD3.5 medium's first blocks the picture
    attends to itself a second time. The text of the last block ends with its keys and values."""

    patch = 2

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, references=()):
        """Scores by space, L x C x N, of one picture. latent: channels x h x w. text: T x D_text. concepts: C x D_text."""
        w, heads = Weights(weights), config["num_heads"]
        vec = w.mlp("t_embedder.mlp.0", silu, "t_embedder.mlp.2", waves(float(t) / 1000))
        vectors = [silu(vec + w.mlp("y_embedder.mlp.0", silu, "y_embedder.mlp.2", y.double())) for y in (pooled, torch.zeros_like(pooled))]
        embedded = w.w["x_embedder.proj.weight"].flatten(1)
        image = tokens(latent.double()) @ embedded.T + w.w["x_embedder.proj.bias"]
        (h, columns), side = [-(-n // 2) for n in latent.shape[1:]], round(w.w["pos_embed"].shape[1] ** 0.5)
        top, left = (side - h) // 2, (side - columns) // 2
        image = image + w.w["pos_embed"][0].unflatten(0, (side, side))[top:top + h, left:left + columns].flatten(0, 1)
        streams = [w.linear("context_embedder", text.double()), w.linear("context_embedder", concepts.double()), image]

        def parts_of(name, x):
            """Queries, keys and values, T x heads x d."""
            q, k, v = w.linear(f"{name}.qkv", x).unflatten(-1, (3, heads, -1)).unbind(1)
            if f"{name}.ln_q.weight" in w:
                q, k = (rms(part, w.w[f"{name}.ln_{letter}.weight"]) for part, letter in ((q, "q"), (k, "k")))
            return q, k, v

        found = Found()
        for i in range(config["num_blocks"]):
            names = [f"joint_blocks.{i}.{kind}_block" for kind in ("context", "context", "x")]
            mods = [w.linear(f"{name}.adaLN_modulation.1", vector).unflatten(-1, (-1, 64 * heads))
                    for name, vector in zip(names, (vectors[0], vectors[1], vectors[0]))]
            q, k, v = zip(*[parts_of(f"{name}.attn", normed(x, mod[0], mod[1])) for name, x, mod in zip(names, streams, mods)])
            outs = attend(q, k, v, len(image))
            found.add(q, k, outs, len(image))
            if i == config["num_blocks"] - 1:
                return found.scores()
            after = []
            for name, x, out, mod in zip(names, streams, outs, mods):
                y = x + mod[2] * w.linear(f"{name}.attn.proj", out)
                if len(mod) == 9:
                    twice = parts_of(f"{name}.attn2", normed(x, mod[6], mod[7]))
                    logits = torch.einsum("qhd,khd->hqk", twice[0], twice[1]) / 8
                    own = torch.einsum("hqk,khd->qhd", logits.softmax(-1), twice[2]).flatten(1)
                    y = y + mod[8] * w.linear(f"{name}.attn2.proj", own)
                after.append(y + mod[5] * w.mlp(f"{name}.mlp.fc1", lambda y: gelu(y, approximate="tanh"), f"{name}.mlp.fc2",
                                                normed(y, mod[3], mod[4])))
            streams = after
