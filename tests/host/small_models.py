"""Small models with random weights, of families that there are no golden values of."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from conftest import SmallFlux


class Drawn:
    """What a golden file is to a model that has one: a configuration, and weights made by the same rule."""

    def __init__(self, config: dict, module: torch.nn.Module, scales: float):
        self.about, self.tensors, self.scales = {"config": config}, {}, scales
        self.shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def weights(self) -> dict[str, torch.Tensor]:
        rng, weights = np.random.RandomState(5), {}
        for name, shape in sorted(self.shapes.items()):
            a = rng.standard_normal(shape)
            if name.endswith(".bias"):
                a = 0.02 * a
            elif name.endswith(".scale"):
                a = self.scales + 0.1 * a
            elif len(shape) == 1:
                a = 1 + 0.1 * a
            else:
                a = a / np.prod(shape[1:]) ** 0.5
            weights[name] = torch.from_numpy(np.float32(a))
        return weights


class SmallModel(SmallFlux):
    """A model of another family: `empty` makes ComfyUI's own, weights are drawn. scales: about which norms' `scale` lies."""

    scales = 1.0

    def __init__(self, drawn: Drawn, **made):
        import comfy.model_patcher

        self.golden, self.about = drawn, drawn.about
        model = self.empty(**made)
        model.load_model_weights(drawn.weights(), "")
        self.patcher = comfy.model_patcher.ModelPatcher(model.eval(), torch.device("cpu"), torch.device("cpu"))

    @classmethod
    def drawn(cls) -> Drawn:
        return Drawn(cls.config, cls.empty().diffusion_model, cls.scales)

    @classmethod
    def built(cls, kind: str, config: dict, dtype=torch.float32, computed=None, operations=None):
        """dtype: of the weights; computed: of the arithmetic, where that is another."""
        import comfy.supported_models

        settings = getattr(comfy.supported_models, kind)(config)
        settings.set_inference_dtype(dtype, computed)
        settings.custom_operations = operations
        return settings.get_model({})


class SmallOvis(SmallModel):
    width = 96
    config = dict(context_in_dim=96, hidden_size=128, mlp_ratio=4.0, num_heads=2, depth=3, depth_single_blocks=2, axes_dim=[16, 24, 24],
                  theta=10_000)
    kind_name, more = "FluxSchnell", dict(yak_mlp=True, txt_norm=True)

    @classmethod
    def empty(cls, **made):
        return cls.built(cls.kind_name, {"image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": None,
                                         "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [1, 2], **cls.more, **cls.config},
                         **made)


class SmallLongCat(SmallOvis):
    kind_name, more = "LongCatImage", {}


class SmallFlux2(SmallOvis):
    """Smaller than the model of the golden values."""

    channels, kind_name = 128, "Flux2"
    config = {**SmallOvis.config, "axes_dim": [16, 16, 16, 16], "theta": 2000, "mlp_ratio": 3.0}
    more = dict(image_model="flux2", in_channels=128, out_channels=128, patch_size=1, qkv_bias=False, guidance_embed=True,
                txt_ids_dims=[3], global_modulation=True, mlp_silu_act=True, ops_bias=False, default_ref_method="index",
                ref_index_scale=10.0)


class SmallChroma(SmallModel):
    width = 96
    config = dict(context_in_dim=96, hidden_size=128, mlp_ratio=4.0, num_heads=2, depth=3, depth_single_blocks=2, axes_dim=[16, 24, 24],
                  theta=10_000)
    kind_name, module, more = "Chroma", "chroma", dict(image_model="chroma", in_channels=64, out_channels=64, patch_size=2)

    @classmethod
    def known(cls) -> set[str]:
        """What this host's class can be told."""
        module = importlib.import_module(f"comfy.ldm.{cls.module}.model")
        return {"image_model", *getattr(module, f"{cls.kind_name}Params").__dataclass_fields__}

    @classmethod
    def empty(cls, **made):
        config = {"txt_ids_dims": [], "vec_in_dim": None, "qkv_bias": True, "in_dim": 64, "out_dim": 128, "hidden_dim": 32, "n_layers": 2,
                  **cls.more, **cls.config}
        return cls.built(cls.kind_name, {name: value for name, value in config.items() if name in cls.known()}, **made)


class SmallRadiance(SmallChroma):
    """The text's tokens are counted along the first axis, as models since May 2026 do, where the host knows it."""

    channels, kind_name, module = 3, "ChromaRadiance", "chroma_radiance"
    more = dict(image_model="chroma_radiance", in_channels=3, out_channels=3, patch_size=16, nerf_hidden_size=8, nerf_mlp_ratio=2,
                nerf_depth=1, nerf_max_freqs=2, nerf_tile_size=0, nerf_final_head_type="conv", nerf_embedder_dtype=torch.float32,
                use_x0=False, use_sequential_txt_ids=True)


class SmallZImage(SmallModel):
    width = 96
    config = dict(dim=256, n_layers=3, n_refiner_layers=2, n_heads=2, n_kv_heads=2, axes_dims=(32, 48, 48), rope_theta=256.0,
                  cap_feat_dim=96)

    @classmethod
    def empty(cls, **made):
        return cls.built("ZImage", {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "qk_norm": True,
                                    "axes_lens": (1536, 512, 512), "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True,
                                    "time_scale": 1000.0, "pad_tokens_multiple": 32, **cls.config}, **made)


class SmallLumina2(SmallModel):
    width = 96
    config = dict(dim=192, n_layers=3, n_refiner_layers=2, n_heads=4, n_kv_heads=2, axes_dims=(16, 16, 16), rope_theta=10_000.0,
                  cap_feat_dim=96)

    @classmethod
    def empty(cls, **made):
        return cls.built("Lumina2", {"image_model": "lumina2", "patch_size": 2, "in_channels": 16, "qk_norm": True,
                                     "axes_lens": (300, 512, 512), "ffn_dim_multiplier": 4.0, **cls.config}, **made)


class SmallKrea2(SmallModel):
    frames, width, scales = (1,), 96, 0.0  # one is added to them
    config = dict(features=256, heads=4, kvheads=2, layers=3, txtdim=32, txtlayers=3, txtheads=2, txtkvheads=1)

    @classmethod
    def empty(cls, **made):
        return cls.built("Krea2", {"image_model": "krea2", **cls.config}, **made)


class SmallQwen(SmallModel):
    frames, width = (1,), 96
    config = dict(num_layers=4, attention_head_dim=128, num_attention_heads=2, joint_attention_dim=96, axes_dims_rope=(16, 56, 56))

    @classmethod
    def empty(cls, **made):
        return cls.built("QwenImage", {"image_model": "qwen_image", "in_channels": 64, **cls.config}, **made)


class SmallSD3(SmallModel):
    """SD3 medium: plain joint blocks, whose queries and keys are not normalised."""

    width = 96
    config = dict(vec_in_dim=32, num_heads=2, num_blocks=4)
    more: dict = {}

    @classmethod
    def empty(cls, **made):
        size = 64 * cls.config["num_heads"]
        return cls.built("SD3", {"in_channels": 16, "out_channels": 16, "patch_size": 2, "input_size": None,
                                 "pos_embed_scaling_factor": None, "pos_embed_max_size": 10, "num_patches": 100,
                                 "depth": cls.config["num_heads"],
                                 "num_blocks": cls.config["num_blocks"], "adm_in_channels": cls.config["vec_in_dim"],
                                 "context_embedder_config": {"target": "torch.nn.Linear",
                                                             "params": {"in_features": cls.width, "out_features": size}}, **cls.more},
                         **made)


class SmallSD35(SmallSD3):
    """SD3.5 medium: normalised queries and keys, and a second attention over the picture in the first blocks."""

    more = dict(qk_norm="rms", x_block_self_attn_layers=[0, 1])


class SmallHunyuanVideo(SmallModel):
    frames, width = (3,), 40
    config = dict(in_channels=16, out_channels=16, patch_size=[1, 2, 2], vec_in_dim=24, context_in_dim=40, hidden_size=64, num_heads=2,
                  depth=3, depth_single_blocks=2, axes_dim=[8, 12, 12], theta=256, guidance_embed=True, byt5=False, vision_in_dim=None)
    kind, more = "HunyuanVideo", {}

    @classmethod
    def empty(cls, **made):
        import comfy.ldm.hunyuan_video.model

        config = {"image_model": "hunyuan_video", "mlp_ratio": 4.0, "qkv_bias": True, "meanflow": False, "meanflow_sum": False,
                  "use_cond_type_embedding": False, **cls.config, **cls.more}
        known = comfy.ldm.hunyuan_video.model.HunyuanVideoParams.__dataclass_fields__.keys() | {"image_model"}
        return cls.built(cls.kind, {name: value for name, value in config.items() if name in known}, **made)

    def conditioning(self, seed: int = 0, tokens: int = 9, **more):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, self.width, generator=generator)
        return [[text, {"pooled_output": torch.randn(1, 24, generator=generator), "guidance": 6.0, **more}]]


class SmallHunyuanVideo15(SmallHunyuanVideo):
    channels, kind = 32, "HunyuanVideo15"
    config = {**SmallHunyuanVideo.config, "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None,
              "guidance_embed": False, "depth_single_blocks": 0, "byt5": True, "vision_in_dim": 20}
    more = {"use_cond_type_embedding": True, "meanflow_sum": True}


class SmallHunyuanImage(SmallHunyuanVideo):
    frames, channels, kind = (), 64, "HunyuanImage21"
    config = {**SmallHunyuanVideo.config, "in_channels": 64, "out_channels": 64, "patch_size": [1, 1], "axes_dim": [16, 16],
              "vec_in_dim": None, "guidance_embed": False}


class SmallWan(SmallModel):
    frames, width, kind = (3,), 40, "WAN21_T2V"
    config = dict(model_type="t2v", dim=64, out_dim=16, num_heads=4, ffn_dim=96, num_layers=3, in_dim=16, text_dim=40)

    @classmethod
    def empty(cls, **made):
        return cls.built(cls.kind, {"image_model": "wan2.1", "patch_size": (1, 2, 2), "freq_dim": 256, "window_size": (-1, -1),
                                    "qk_norm": True, "cross_attn_norm": True, "eps": 1e-6, **cls.config}, **made)


class SmallWanOfAPicture(SmallWan):
    kind = "WAN21_I2V"
    config = {**SmallWan.config, "model_type": "i2v", "in_dim": 36}


class SmallWan22(SmallWan):
    channels, kind = 48, "WAN22_T2V"
    config = {**SmallWan.config, "in_dim": 48, "out_dim": 48}
