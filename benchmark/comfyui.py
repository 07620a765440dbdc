"""Flux.1 in ComfyUI, and what it is sampled with. The host stands in the folder that COMFYUI_HOST names."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

sys.path[:0] = [os.environ["COMFYUI_HOST"], str(Path(__file__).resolve().parent.parent / "tests" / "host")]
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
from concept_saliency.core.concepts import ConceptInputs  # noqa: E402
from concept_saliency.core.families.flux1 import comfyui as family  # noqa: E402
from concept_saliency.core.live import LiveSaliency  # noqa: E402
from concept_saliency.core.recording import Recorder  # noqa: E402
from concept_saliency.nodes import host  # noqa: E402
from concept_saliency.nodes.live_preview import LivePreview, picture  # noqa: E402
from concept_saliency.nodes.runs import ConceptRuns  # noqa: E402
from flux import AXES, CONTRAST, DTYPE, HEADS, TEXT, WIDTH, fill, names, vectors  # noqa: E402


class Flux:
    """A MODEL of `depth` double-stream and twice as many single-stream blocks."""

    naming = family

    def __init__(self, depth: int):
        self.device = comfy.model_management.get_torch_device()
        settings = dict(image_model="flux", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, hidden_size=WIDTH,
                        mlp_ratio=4.0, num_heads=HEADS, depth=depth, depth_single_blocks=2 * depth, axes_dim=list(AXES), theta=10_000,
                        patch_size=2, qkv_bias=True, guidance_embed=True, txt_ids_dims=[])
        known = comfy.ldm.flux.model.FluxParams.__dataclass_fields__.keys() | {"image_model"}
        config = comfy.supported_models.Flux({name: value for name, value in settings.items() if name in known})
        config.set_inference_dtype(DTYPE, None)
        model = config.get_model({}, device=self.device)
        self.transformer = fill(model.diffusion_model, self.device)
        self.model = comfy.model_patcher.ModelPatcher(model.eval(), self.device, torch.device("cpu"))

    def with_model(self, model):
        other = object.__new__(Flux)
        vars(other).update(vars(self), model=model)
        return other

    def captured(self, concepts: int, window=(0.0, 1.0), blocks="auto", live=False):
        """The same with Concept Attention for so many concepts beside the contrast ones. live: with its preview, sent to nobody."""
        inputs = ConceptInputs(names(concepts), CONTRAST, vectors(concepts + len(CONTRAST)), blocks=blocks)
        preview = LivePreview("1") if live else None
        return self.with_model(host.patch(self.model, family, inputs, window, ConceptRuns(), preview))

    def preview(self, steps: int, tokens: int, concepts: int, layers: int = 19) -> list[float]:
        """Seconds that the preview takes in each step beside the model, the server's JPEG included."""
        levels, side = torch.linspace(1, 0, steps + 1).tolist(), 16 * round(tokens**0.5)
        recorder = Recorder(names(concepts), CONTRAST, family.NAME, family.DEFAULTS, levels, layers, (side, side))
        live, took = LiveSaliency(recorder), []
        for level in levels[:-1]:
            recorder.add(level, {"output": torch.randn(layers, 1, concepts + len(CONTRAST), tokens)})
            start = time.perf_counter()
            picture(live.newest()).save(io.BytesIO(), "JPEG", quality=95)
            took.append(time.perf_counter() - start)
        return took

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def sample(self, tokens: int, steps: int = 1) -> torch.Tensor:
        latent = torch.zeros(1, 16, side(tokens), side(tokens))
        noise = comfy.sample.prepare_noise(latent, 0)
        result = comfy.sample.sample(self.model, noise, steps, 1.0, "euler", "simple", prompt(), prompt(), latent, disable_pbar=True,
                                     seed=0)
        self.finish()
        return result

    def look_at_picture(self, tokens: int, blocks="auto") -> None:
        """One pass of Concept Attention (Image)."""
        inputs = ConceptInputs(names(11), CONTRAST, vectors(11 + len(CONTRAST)), blocks=blocks)
        latent = torch.randn(1, 16, side(tokens), side(tokens), generator=torch.Generator().manual_seed(3))
        host.record_image(self.model, family, inputs, latent, (side(tokens) * 8,) * 2, prompt(), 0.5, [0])
        self.finish()


def side(tokens: int) -> int:
    """The latent's side for so many image tokens."""
    return 2 * round(tokens**0.5)


def prompt():
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(1, TEXT, 4096, generator=generator), {"pooled_output": torch.randn(1, 768, generator=generator), "guidance": 3.5}]]
