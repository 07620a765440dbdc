"""The method, slowly and plainly, in float64, for models that draw videos.

Straight from the published descriptions of the models and the paper's equations; no code is shared with the pack.
"""

from __future__ import annotations

import torch
from reference_joint import Found, Weights, attend, normed, rms
from torch.nn.functional import gelu, layer_norm, silu


def waves(value, theta=10_000):
    """256 cosines and sines."""
    angle = float(value) * theta ** -(torch.arange(128).double() / 128)
    return torch.cat((angle.cos(), angle.sin()))


def tokens(latent, patch):
    """channels x T x h x w -> N x channels * patch * patch, frame by frame; beyond the edge it goes on from the other side."""
    rows, columns = (torch.arange(-(-side // patch) * patch) % side for side in latent.shape[2:])
    patches = latent.double()[:, :, rows][:, :, :, columns].unfold(2, patch, patch).unfold(3, patch, patch)
    return patches.permute(1, 2, 3, 0, 4, 5).flatten(3).flatten(0, 2)


def turns(latent, patch, axes, theta):
    """RoPE of a latent's tokens, by frame, row and column: N x 1 x d/2."""
    places = torch.cartesian_prod(*(torch.arange(n) for n in (latent.shape[1], *(-(-side // patch) for side in latent.shape[2:]))))
    angles = torch.cat([places[:, i, None].double() * theta ** -(torch.arange(0, d, 2).double() / d) for i, d in enumerate(axes)], dim=1)
    return torch.polar(torch.ones_like(angles), angles)[:, None]


def turned(x, turn):
    return torch.view_as_real(torch.view_as_complex(x.contiguous().unflatten(-1, (-1, 2))) * turn).flatten(-2)


class HunyuanVideo:
    """HunyuanVideo (2412.03603): Flux's blocks with a token refiner before them. 1.5: no pooled vector, tokens marked by what they are."""

    spaces = ("output", "cross-attention")

    def __init__(self, patch):
        self.patch = patch

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, singles=0, byt5=None, vision=None):
        """Scores by space, L x C x N, of one clip. latent: channels x T x h x w. text: T x D_text. concepts: C x D_text.
        byt5, vision: more of the prompt."""
        w, heads = Weights({name.replace("_norm.scale", "_norm.weight"): value for name, value in weights.items()}), config["num_heads"]

        def embedded(name, value):
            return w.mlp(f"{name}.in_layer", silu, f"{name}.out_layer", value)

        def split(name, x, count=3):
            return w.linear(name, x).unflatten(-1, (count, heads, -1)).unbind(1)

        def refined(x):
            """One prompt's tokens, which see one another."""
            c = embedded("txt_in.t_embedder", waves(t)) + embedded("txt_in.c_embedder", x.mean(0))
            x = w.linear("txt_in.input_embedder", x)
            for i in range(2):
                name = f"txt_in.individual_token_refiner.blocks.{i}"
                gate1, gate2 = w.linear(f"{name}.adaLN_modulation.1", silu(c)).chunk(2)

                def norm(x, which, name=name):
                    return layer_norm(x, x.shape[-1:], w.w[f"{name}.{which}.weight"], w.w[f"{name}.{which}.bias"], eps=1e-6)

                q, k, v = split(f"{name}.self_attn.qkv", norm(x, "norm1"))
                seen = (torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
                x = x + gate1 * w.linear(f"{name}.self_attn.proj", torch.einsum("hqk,khd->qhd", seen, v).flatten(1))
                x = x + gate2 * w.mlp(f"{name}.mlp.0", silu, f"{name}.mlp.2", norm(x, "norm2"))
            return x + w.w["cond_type_embedding.weight"][0] if "cond_type_embedding.weight" in w else x

        prompt_vec = embedded("time_in", waves(t))
        if config["guidance_embed"]:
            prompt_vec = prompt_vec + embedded("guidance_in", waves(1000 * float(guidance)))
        concept_vec = prompt_vec
        if config["vec_in_dim"]:
            prompt_vec = prompt_vec + embedded("vector_in", pooled.double())
            concept_vec = concept_vec + embedded("vector_in", torch.zeros_like(pooled).double())

        words = refined(text.double())
        if byt5 is not None:
            b = layer_norm(byt5.double(), byt5.shape[-1:], w.w["byt5_in.layernorm.weight"], w.w["byt5_in.layernorm.bias"])
            letters = w.mlp("byt5_in.fc2", gelu, "byt5_in.fc3", gelu(w.linear("byt5_in.fc1", b)))
            words = torch.cat((words, letters + w.w["cond_type_embedding.weight"][1] if "cond_type_embedding.weight" in w else letters))
        if vision is not None:
            p, (first, last) = vision.double(), ("vision_in.proj.0", "vision_in.proj.4")
            p = layer_norm(p, p.shape[-1:], w.w[f"{first}.weight"], w.w[f"{first}.bias"])
            p = w.mlp("vision_in.proj.1", gelu, "vision_in.proj.3", p)
            words = torch.cat((words, layer_norm(p, p.shape[-1:], w.w[f"{last}.weight"], w.w[f"{last}.bias"])
                               + w.w["cond_type_embedding.weight"][2]))
        image = tokens(latent, self.patch) @ w.w["img_in.proj.weight"].flatten(1).T + w.w["img_in.proj.bias"]
        streams = [words, torch.cat([refined(c[None]) for c in concepts.double()]), image]
        own, turn = len(image), turns(latent, self.patch, config["axes_dim"], config["theta"])
        found, vecs = Found(), (prompt_vec, concept_vec, prompt_vec)

        def attended(q, k, v):
            outs = attend((*q[:2], turned(q[2], turn)), (*k[:2], turned(k[2], turn)), v, own)
            found.add(q, k, outs, own)
            return outs

        def normalised(name, q, k):
            return rms(q, w.w[f"{name}.query_norm.weight"]), rms(k, w.w[f"{name}.key_norm.weight"])

        for i in range(config["depth"]):
            name, parts, mods = f"double_blocks.{i}", [], []
            for kind, x, vec in zip(("txt", "txt", "img"), streams, vecs):
                mods.append(w.linear(f"{name}.{kind}_mod.lin", silu(vec)).chunk(6))
                q, k, v = split(f"{name}.{kind}_attn.qkv", normed(x, *mods[-1][:2]))
                parts.append((*normalised(f"{name}.{kind}_attn.norm", q, k), v))
            outs, after = attended(*zip(*parts)), []
            for kind, x, out, (_, _, gate1, shift2, scale2, gate2) in zip(("txt", "txt", "img"), streams, outs, mods):
                x = x + gate1 * w.linear(f"{name}.{kind}_attn.proj", out)
                after.append(x + gate2 * w.mlp(f"{name}.{kind}_mlp.0", lambda y: gelu(y, approximate="tanh"), f"{name}.{kind}_mlp.2",
                                               normed(x, shift2, scale2)))
            streams = after
        for i in range(singles):
            name, parts, more, gates = f"single_blocks.{i}", [], [], []
            for x, vec in zip(streams, vecs):
                shift, scale, gate = w.linear(f"{name}.modulation.lin", silu(vec)).chunk(3)
                both = w.linear(f"{name}.linear1", normed(x, shift, scale))
                q, k, v = both[:, :3 * x.shape[1]].unflatten(-1, (3, heads, -1)).unbind(1)
                parts.append((*normalised(f"{name}.norm", q, k), v))
                more.append(gelu(both[:, 3 * x.shape[1]:], approximate="tanh"))
                gates.append(gate)
            streams = [x + gate * w.linear(f"{name}.linear2", torch.cat((out, hidden), dim=1))
                       for x, gate, out, hidden in zip(streams, gates, attended(*zip(*parts)), more)]
        return found.scores()


class HunyuanImage(HunyuanVideo):
    """HunyuanImage 2.1 (Tencent, 2025): the same of one frame, whose tokens have two places."""

    def scores(self, weights, config, latent, references=(), **inputs):
        """latent: channels x h x w. Everything else: see HunyuanVideo's."""
        return super().scores(weights, {**config, "axes_dim": (0, *config["axes_dim"])}, latent[:, None], **inputs)


class Wan:
    """Wan (2503.20314): self-attention, then cross-attention to the text, to which first pictures are a second one beside it."""

    spaces = ("cross-attention",)
    patch = 2

    def scores(self, weights, config, latent, text, concepts, t, guidance=None, pooled=None, vision=None):
        """Scores by space, L x C x N, of one clip. latent: channels x T x h x w. text: T x D_text. concepts: C x D_text. vision: of a
        first picture."""
        w, heads = Weights(weights), config["num_heads"]
        side = config["dim"] // heads

        def norm(name, x):
            return layer_norm(x, x.shape[-1:], w.w.get(f"{name}.weight"), w.w.get(f"{name}.bias"), eps=1e-6)

        def projected(name, kind, x, suffix=""):
            """Normalised over all heads at once."""
            return rms(w.linear(f"{name}.{kind}{suffix}", x), w.w[f"{name}.norm_{kind}{suffix}.weight"]).unflatten(-1, (heads, -1))

        def attended(q, k, v):
            seen = (torch.einsum("qhd,khd->hqk", q, k) / side ** 0.5).softmax(-1)
            return torch.einsum("hqk,khd->qhd", seen, v.unflatten(-1, (heads, -1))).flatten(1)

        def embedded(x):
            return w.mlp("text_embedding.0", lambda y: gelu(y, approximate="tanh"), "text_embedding.2", x.double())

        x = tokens(latent, 2) @ w.w["patch_embedding.weight"].flatten(1).T + w.w["patch_embedding.bias"]
        turn = turns(latent, 2, (side - 4 * (side // 6), 2 * (side // 6), 2 * (side // 6)), 10_000)
        e = w.mlp("time_embedding.0", silu, "time_embedding.2", waves(t))
        e = w.linear("time_projection.1", silu(e)).unflatten(0, (6, -1))
        words, asked, found = embedded(text), embedded(concepts), []
        seen = words if "blocks.0.cross_attn.k_img.weight" in w else None  # ComfyUI shows it the text twice where there is no picture
        if vision is not None:
            p = layer_norm(vision.double(), vision.shape[-1:], w.w["img_emb.proj.0.weight"], w.w["img_emb.proj.0.bias"])
            p = w.mlp("img_emb.proj.1", gelu, "img_emb.proj.3", p)
            seen = layer_norm(p, p.shape[-1:], w.w["img_emb.proj.4.weight"], w.w["img_emb.proj.4.bias"])
        for i in range(config["num_layers"]):
            name = f"blocks.{i}"
            shift1, scale1, gate1, shift2, scale2, gate2 = w.w[f"{name}.modulation"][0] + e
            y, attn = normed(x, shift1, scale1), f"{name}.self_attn"
            q, k = (turned(projected(attn, kind, y), turn) for kind in "qk")
            x = x + gate1 * w.linear(f"{attn}.o", attended(q, k, w.linear(f"{attn}.v", y)))
            attn = f"{name}.cross_attn"
            q = projected(attn, "q", norm(f"{name}.norm3", x))
            found.append(torch.einsum("chd,nhd->cn", projected(attn, "k", asked), q))
            out = attended(q, projected(attn, "k", words), w.linear(f"{attn}.v", words))
            if seen is not None:
                out = out + attended(q, projected(attn, "k", seen, "_img"), w.linear(f"{attn}.v_img", seen))
            x = x + w.linear(f"{attn}.o", out)
            x = x + gate2 * w.mlp(f"{name}.ffn.0", lambda y: gelu(y, approximate="tanh"), f"{name}.ffn.2", normed(x, shift2, scale2))
        return {"cross-attention": torch.stack(found)}
