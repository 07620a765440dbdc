"""The method, slowly and plainly, in float64, for models in which text and image share their weights.

Straight from the paper's equations and the published descriptions of the models; no code is shared with the pack. Every layer
computes one attention over [text; concepts; pictures] with a mask: text and pictures see no concept, concepts see one another
and the picture's own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from reference_joint import Weights, tokens, waves
from torch.nn.functional import gelu, silu


def rms(x, weight, eps=1e-5):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def turns(places, axes, theta):
    """Positions T x axes -> rotations T x 1 x d/2."""
    angles = torch.cat([places[:, i, None].double() * theta ** -(torch.arange(0, d, 2).double() / d) for i, d in enumerate(axes)], dim=1)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def turned(x, turn):
    return torch.view_as_real(torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2))) * turn).flatten(-2)


def attend(q, k, v, may_see):
    """T x heads x d, and which token may see which -> T x D."""
    logits = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hqk,khd->qhd", logits.masked_fill(~may_see, -torch.inf).softmax(-1), v).flatten(1)


def sight(is_concept, is_own):
    """Which token may see which."""
    return torch.where(is_concept[:, None], (is_concept | is_own)[None], ~is_concept[None])


@dataclass(frozen=True)
class NextDiT:
    """Z-Image and Lumina 2. concept_at: the concepts' place among the text tokens, which are counted from 1. multiple: to which
    text and pictures are filled up. modulation: the layer's name for it; silu: whether time goes through one before. from_1000:
    whether time is counted from 1000 down, not from 1."""

    concept_at: int
    multiple: int = 32
    modulation: str = "adaLN_modulation.0"
    silu: bool = False
    from_1000: bool = True
    patch: int = 2

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, references=()):
        """Scores by space, L x C x N, of one picture. latent, references: channels x h x w. text: T x D_text. concepts: C x D_text.

        References stand before the picture, each with a text of nothing but filling before all of the text, and are without noise.
        """
        w, axes, theta = Weights(weights), config["axes_dims"], config["rope_theta"]

        def time(t):
            x = w.mlp("t_embedder.mlp.0", silu, "t_embedder.mlp.2", waves((1 - t) if self.from_1000 else (1 - t) / 1000))
            return silu(x) if self.silu else x

        def filled(x, name):
            missing = -len(x) % self.multiple
            return torch.cat((x, w.w[name].expand(missing, -1))) if missing else x

        def embedded(x):
            return w.linear("cap_embedder.1", rms(x.double(), w.w["cap_embedder.0.weight"]))

        caps, images, cap_places, image_places, start = [], [], [], [], 0
        for picture in (*references, latent):
            own_text = embedded(text) if picture is latent else w.w["cap_pad_token"]
            caps.append(filled(own_text, "cap_pad_token"))
            place = torch.zeros(len(caps[-1]), 3)
            place[:, 0] = start + 1 + torch.arange(len(place))
            cap_places.append(place)
            start += len(place)
            # within a patch: row, column, channel
            pixels = tokens(picture.double()).unflatten(1, (-1, self.patch ** 2)).transpose(1, 2).flatten(1)
            images.append(filled(w.linear("x_embedder", pixels), "x_pad_token"))
            rows, columns = (-(-side // self.patch) for side in picture.shape[1:])
            place = torch.cartesian_prod(torch.tensor([start + 1.0]), torch.arange(float(rows)), torch.arange(float(columns)))
            image_places.append(torch.cat((place, torch.zeros(len(images[-1]) - len(place), 3))))
            start += 2
        concept_place = torch.tensor([[float(self.concept_at), 0, 0]]).expand(len(concepts), -1)
        own = rows * columns
        noisy = [[time(t if i == len(references) else 0 * t).expand(len(x), -1) for i, x in enumerate(part)] for part in (caps, images)]
        cap_time, image_time = map(torch.cat, noisy)

        told = torch.cat((*caps, embedded(concepts)))
        is_concept = torch.arange(len(told)) >= len(told) - len(concepts)
        told_turn = turns(torch.cat((*cap_places, concept_place)), axes, theta)
        image, image_turn = torch.cat(images), turns(torch.cat(image_places), axes, theta)
        for i in range(config["n_refiner_layers"]):
            told, *_ = self.layer(w, config, f"context_refiner.{i}", told, told_turn, sight(is_concept, torch.zeros_like(is_concept)))
            image, *_ = self.layer(w, config, f"noise_refiner.{i}", image, image_turn, torch.ones(1, 1, dtype=torch.bool), image_time)

        x, turn = torch.cat((told, image)), torch.cat((told_turn, image_turn))
        first = len(x) - len(images[-1])
        place = torch.arange(len(x))
        is_concept, is_own = torch.cat((is_concept, place[len(told):] < 0)), (place >= first) & (place < first + own)
        times = torch.cat((cap_time, time(t).expand(len(concepts), -1), image_time))
        found = {"output": [], "cross-attention": []}
        for i in range(config["n_layers"]):
            x, q, k, out = self.layer(w, config, f"layers.{i}", x, turn, sight(is_concept, is_own), times)
            found["output"].append(out[is_concept] @ out[is_own].T)
            found["cross-attention"].append(torch.einsum("chd,nhd->cn", q[is_concept], k[is_own]))
        return {space: torch.stack(scores) for space, scores in found.items()}

    def layer(self, w, config, name, x, turn, may_see, time=None):
        """Tokens after one layer, their queries and keys before RoPE, and what attention gives."""
        mods = (0, 100, 0, 100) if time is None else w.linear(f"{name}.{self.modulation}", time).chunk(4, -1)
        scale1, gate1, scale2, gate2 = map(torch.as_tensor, mods)  # a gate of 100 is open

        def norm(which, x):
            return rms(x, w.w[f"{name}.{which}.weight"])

        heads, fewer = config["n_heads"], config["n_kv_heads"]
        sizes = [n * config["dim"] // heads for n in (heads, fewer, fewer)]
        q, k, v = (part.unflatten(-1, (n, -1)) for part, n in zip(
            w.linear(f"{name}.attention.qkv", norm("attention_norm1", x) * (1 + scale1)).split(sizes, -1), (heads, fewer, fewer)))
        q, k = (rms(part, w.w[f"{name}.attention.{which}_norm.weight"], 2 ** -23) for part, which in ((q, "q"), (k, "k")))
        k, v = (part.repeat_interleave(heads // fewer, dim=1) for part in (k, v))
        out = attend(turned(q, turn), turned(k, turn), v, may_see)
        x = x + gate1.double().tanh() * norm("attention_norm2", w.linear(f"{name}.attention.out", out))
        y = norm("ffn_norm1", x) * (1 + scale2)
        y = w.linear(f"{name}.feed_forward.w2", silu(w.linear(f"{name}.feed_forward.w1", y)) * w.linear(f"{name}.feed_forward.w3", y))
        return x + gate2.double().tanh() * norm("ffn_norm2", y), q, k, out


class Krea2:
    """Krea 2: all text at position 0, of several layers of its encoder; a gate on attention; keys and values in fewer heads."""

    patch = 2

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, references=()):
        """Scores by space, L x C x N, of one picture. latent, references: channels x 1 x h x w. text: T x layers * D_text."""
        w, width = Weights(weights), config["features"] // config["heads"]
        own_text = torch.arange(len(text) + len(concepts)) < len(text)
        nothing = torch.zeros_like(own_text)

        told = torch.cat((text, concepts)).double().unflatten(-1, (config["txtlayers"], -1))
        for i in range(2):
            layerwise = f"txtfusion.layerwise_blocks.{i}"
            told = torch.stack([self.fusion(w, config, layerwise, x, torch.ones(1, 1, dtype=torch.bool)) for x in told])
        told = w.linear("txtfusion.projector", told.transpose(1, 2))[..., 0]
        for i in range(2):
            told = self.fusion(w, config, f"txtfusion.refiner_blocks.{i}", told, sight(~own_text, nothing))
        told = w.mlp("txtmlp.1", self.gelu, "txtmlp.3", rms(told, 1 + w.w["txtmlp.0.scale"]))

        pictures = [picture[:, 0].double() for picture in (latent, *references)]
        image = w.linear("first", torch.cat([tokens(picture) for picture in pictures]))
        grids = [[-(-side // 2) for side in picture.shape[1:]] for picture in pictures]
        places = torch.cat([torch.zeros(len(told), 3), *(
            torch.cartesian_prod(torch.tensor([float(number)]), torch.arange(float(rows)), torch.arange(float(columns)))
            for number, (rows, columns) in enumerate(grids))])
        turn = turns(places, (width - 12 * (width // 16), 6 * (width // 16), 6 * (width // 16)), 1000.0)
        mods = w.linear("tproj.1", self.gelu(w.mlp("tmlp.0", self.gelu, "tmlp.2", waves(t))))

        x, place = torch.cat((told, image)), torch.arange(len(told) + len(image))
        is_concept = (place >= len(text)) & (place < len(told))
        is_own = (place >= len(told)) & (place < len(told) + grids[0][0] * grids[0][1])
        found = {"output": [], "cross-attention": []}
        for i in range(config["layers"]):
            scale1, shift1, gate1, scale2, shift2, gate2 = (mods + w.w[f"blocks.{i}.mod.lin"]).chunk(6)
            y = (1 + scale1) * rms(x, 1 + w.w[f"blocks.{i}.prenorm.scale"]) + shift1
            added, q, k, out = self.attention(w, f"blocks.{i}.attn", config["heads"], config["kvheads"], y, sight(is_concept, is_own), turn)
            x = x + gate1 * added
            x = x + gate2 * self.swiglu(w, f"blocks.{i}.mlp", (1 + scale2) * rms(x, 1 + w.w[f"blocks.{i}.postnorm.scale"]) + shift2)
            found["output"].append(out[is_concept] @ out[is_own].T)
            found["cross-attention"].append(torch.einsum("chd,nhd->cn", q[is_concept], k[is_own]))
        return {space: torch.stack(scores) for space, scores in found.items()}

    @staticmethod
    def gelu(x):
        return gelu(x, approximate="tanh")

    def fusion(self, w, config, name, x, may_see):
        y = rms(x, 1 + w.w[f"{name}.prenorm.scale"])
        x = x + self.attention(w, f"{name}.attn", config["txtheads"], config["txtkvheads"], y, may_see)[0]
        return x + self.swiglu(w, f"{name}.mlp", rms(x, 1 + w.w[f"{name}.postnorm.scale"]))

    def swiglu(self, w, name, x):
        return w.linear(f"{name}.down", silu(w.linear(f"{name}.gate", x)) * w.linear(f"{name}.up", x))

    def attention(self, w, name, heads, fewer, x, may_see, turn=None):
        """What is added, queries and keys before RoPE, and what attention gives before the gate."""
        q, k, v = (w.linear(f"{name}.{layer}", x).unflatten(-1, (n, -1)) for layer, n in (("wq", heads), ("wk", fewer), ("wv", fewer)))
        q, k = (rms(part, 1 + w.w[f"{name}.qknorm.{norm}.scale"]) for part, norm in ((q, "qnorm"), (k, "knorm")))
        k, v = (part.repeat_interleave(heads // fewer, dim=1) for part in (k, v))
        out = attend(*((q, k) if turn is None else (turned(q, turn), turned(k, turn))), v, may_see)
        return w.linear(f"{name}.wo", out * torch.sigmoid(w.linear(f"{name}.gate", x))), q, k, out
