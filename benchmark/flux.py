"""Flux.1 at full width with random weights, in ComfyUI, and what it is sampled with."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = Path(os.environ.get("COMFYUI_HOST", "."))
sys.path[:0] = [str(HOST), str(REPOSITORY / "tests" / "host")]
import torchvision_shim  # noqa: E402

torchvision_shim.make_importable()
import utils.install_util  # noqa: E402, F401
import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = not torch.cuda.is_available()
import comfy.ldm.flux.model  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.supported_models  # noqa: E402

spec = importlib.util.spec_from_file_location("concept_saliency", REPOSITORY / "__init__.py", submodule_search_locations=[str(REPOSITORY)])
sys.modules["concept_saliency"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["concept_saliency"])
from concept_saliency.core.concepts import ConceptInputs  # noqa: E402
from concept_saliency.core.families.flux1 import comfyui  # noqa: E402
from concept_saliency.nodes import host  # noqa: E402
from concept_saliency.nodes.runs import ConceptRuns  # noqa: E402

WIDTH, HEADS, TEXT = 3072, 24, 256
CONTRAST = ("background", "floor", "tree", "person", "grass", "face")
DEVICE = comfy.model_management.get_torch_device()


def build(depth: int, dtype=torch.bfloat16):
    """A MODEL of `depth` double-stream and twice as many single-stream blocks."""
    settings = dict(image_model="flux", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=WIDTH,
                    mlp_ratio=4.0, num_heads=HEADS, depth=depth, depth_single_blocks=2 * depth, axes_dim=[16, 56, 56], theta=10_000,
                    patch_size=2, qkv_bias=True, guidance_embed=True, txt_ids_dims=[])
    known = comfy.ldm.flux.model.FluxParams.__dataclass_fields__.keys() | {"image_model"}
    config = comfy.supported_models.Flux({name: value for name, value in settings.items() if name in known})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    for name, weight in model.diffusion_model.named_parameters():
        weight.data = torch.randn(weight.shape, generator=generator, device=DEVICE, dtype=dtype) / (weight.shape[-1] ** 0.5)
        if name.endswith("scale"):
            weight.data.fill_(1)
    return comfy.model_patcher.ModelPatcher(model.eval(), DEVICE, torch.device("cpu"))


def capture(model, concepts: int, window=(0.0, 1.0)):
    """The MODEL with Concept Attention for so many concepts beside the contrast ones, and its runs."""
    names = tuple(f"concept {i}" for i in range(concepts))
    vectors = torch.randn(1, concepts + len(CONTRAST), 4096, generator=torch.Generator().manual_seed(1))
    runs = ConceptRuns()
    return host.patch(model, comfyui, ConceptInputs(names, CONTRAST, vectors, False), window, runs), runs


def side(tokens: int) -> int:
    """The latent's side for so many image tokens."""
    return 2 * round(tokens**0.5)


def prompt():
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(1, TEXT, 4096, generator=generator), {"pooled_output": torch.randn(1, 768, generator=generator), "guidance": 3.5}]]


def sample(model, tokens: int, steps: int = 1) -> torch.Tensor:
    latent = torch.zeros(1, 16, side(tokens), side(tokens))
    noise = comfy.sample.prepare_noise(latent, 0)
    result = comfy.sample.sample(model, noise, steps, 1.0, "euler", "simple", prompt(), prompt(), latent, disable_pbar=True, seed=0)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return result


def look_at_picture(model, tokens: int) -> None:
    """One pass of Concept Attention (Image)."""
    vectors = torch.randn(1, 11 + len(CONTRAST), 4096, generator=torch.Generator().manual_seed(1))
    inputs = ConceptInputs(tuple(f"concept {i}" for i in range(11)), CONTRAST, vectors, False)
    latent = torch.randn(1, 16, side(tokens), side(tokens), generator=torch.Generator().manual_seed(3))
    host.record_image(model, comfyui, inputs, latent, (side(tokens) * 8,) * 2, prompt(), 0.5, [0])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
