"""Small models with random weights, of families that there are no golden values of."""

from __future__ import annotations

import numpy as np
import torch
from conftest import SmallFlux


class Drawn:
    """What a golden file is to a model that has one: a configuration, and weights made by the same rule."""

    def __init__(self, config: dict, module: torch.nn.Module):
        self.about, self.tensors = {"config": config}, {}
        self.shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def weights(self) -> dict[str, torch.Tensor]:
        rng, weights = np.random.RandomState(5), {}
        for name, shape in sorted(self.shapes.items()):
            a = rng.standard_normal(shape)
            if name.endswith(".bias"):
                a = 0.02 * a
            elif name.endswith(".scale"):  # Krea's, to which one is added
                a = 0.1 * a
            elif len(shape) == 1:
                a = 1 + 0.1 * a
            else:
                a = a / np.prod(shape[1:]) ** 0.5
            weights[name] = torch.from_numpy(np.float32(a))
        return weights


class SmallModel(SmallFlux):
    """A model of another family: `empty` makes ComfyUI's own, weights are drawn."""

    def __init__(self, drawn: Drawn, **made):
        import comfy.model_patcher

        self.golden, self.about = drawn, drawn.about
        model = self.empty(**made)
        model.load_model_weights(drawn.weights(), "")
        self.patcher = comfy.model_patcher.ModelPatcher(model.eval(), torch.device("cpu"), torch.device("cpu"))

    @classmethod
    def drawn(cls) -> Drawn:
        return Drawn(cls.config, cls.empty().diffusion_model)

    @classmethod
    def built(cls, kind: str, config: dict, dtype=torch.float32, operations=None):
        import comfy.supported_models

        settings = getattr(comfy.supported_models, kind)(config)
        settings.set_inference_dtype(dtype, None)
        settings.custom_operations = operations
        return settings.get_model({})


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
    frames, width = (1,), 96
    config = dict(features=256, heads=4, kvheads=2, layers=3, txtdim=32, txtlayers=3, txtheads=2, txtkvheads=1)

    @classmethod
    def empty(cls, **made):
        return cls.built("Krea2", {"image_model": "krea2", **cls.config}, **made)


class SmallQwen(SmallModel):
    frames, width = (1,), 96
    config = dict(num_layers=4, attention_head_dim=128, num_attention_heads=2, joint_attention_dim=96, axes_dims_rope=(16, 56, 56))

    @classmethod
    def empty(cls):
        return cls.built("QwenImage", {"image_model": "qwen_image", "in_channels": 64, **cls.config})


class SmallSD3(SmallModel):
    """SD3 medium: plain joint blocks, whose queries and keys are not normalised."""

    width = 96
    config = dict(vec_in_dim=32, num_heads=2, num_blocks=4)
    more: dict = {}

    @classmethod
    def empty(cls):
        size = 64 * cls.config["num_heads"]
        return cls.built("SD3", {"in_channels": 16, "out_channels": 16, "patch_size": 2, "input_size": None,
                                 "pos_embed_scaling_factor": None, "pos_embed_max_size": 10, "num_patches": 100,
                                 "depth": cls.config["num_heads"],
                                 "num_blocks": cls.config["num_blocks"], "adm_in_channels": cls.config["vec_in_dim"],
                                 "context_embedder_config": {"target": "torch.nn.Linear",
                                                             "params": {"in_features": cls.width, "out_features": size}}, **cls.more})


class SmallSD35(SmallSD3):
    """SD3.5 medium: normalised queries and keys, and a second attention over the picture in the first blocks."""

    more = dict(qk_norm="rms", x_block_self_attn_layers=[0, 1])
