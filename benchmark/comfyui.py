"""Flux.1 in ComfyUI, and what it is sampled with. The host stands in the folder that COMFYUI_HOST names."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
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
from concept_saliency.core.live_region import RegionRule  # noqa: E402
from concept_saliency.core.masks import Shaping  # noqa: E402
from concept_saliency.core.recording import Recorder  # noqa: E402
from concept_saliency.nodes import host  # noqa: E402
from concept_saliency.nodes.live_preview import LivePreview, picture  # noqa: E402
from concept_saliency.nodes.runs import ConceptRuns  # noqa: E402
from flux import AXES, CONTRAST, DTYPE, HEADS, TEXT, WIDTH, fill, names, vectors  # noqa: E402


class Flux:
    """A MODEL of `depth` double-stream and twice as many single-stream blocks."""

    naming = family

    def __init__(self, depth: int, batch: int):
        self.batch = batch
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
        self.positive, self.share = prompt(), None  # share: how much of the picture is masked, from its left edge

    def changed(self, **others):
        other = object.__new__(Flux)
        vars(other).update(vars(self), **others)
        return other

    def captured(self, concepts: int, window=(0.0, 1.0), blocks="auto", live=False):
        """The same with Concept Attention for so many concepts beside the contrast ones. live: with its preview, sent to nobody."""
        inputs = ConceptInputs(names(concepts), CONTRAST, vectors(concepts + len(CONTRAST)), blocks=blocks)
        preview = LivePreview("1") if live else None
        return self.changed(model=host.patch(self.model, family, inputs, window, ConceptRuns(), preview))

    def with_region(self, concepts: int, update: int):
        """The same with Concept Region from the second of its steps on. Random weights see nothing surely: the strongest 40% are it."""
        inputs = ConceptInputs(names(concepts), CONTRAST, vectors(concepts + len(CONTRAST)))
        rule = RegionRule(method="percentile", threshold=0.6, min_presence=0.0)
        return self.changed(model=host.add_region(self.model, family, inputs, prompt(), rule, (0.0, 1.0), update, ConceptRuns()))

    def with_mask(self, tokens: int, steps: int):
        """The same with a second prompt in a mask that is known: ComfyUI's own, from the second of so many steps on."""
        mask = left(0.4, tokens)
        [[text, more]] = prompt()
        return self.changed(positive=[*self.positive, [text, {**more, "mask": mask, "start_percent": 0.9 / steps}]])

    def painting(self, share: float, erase: bool):
        """The same where only a share of the picture is painted anew. erase: with Erase under Mask."""
        return self.changed(share=share, model=host.erase(self.model, family) if erase else self.model)

    def recorded(self, steps: int, tokens: int, concepts: int, layers: int = 19) -> Iterator[Recorder]:
        """A recorder after each step of a run."""
        levels, side = torch.linspace(1, 0, steps + 1).tolist(), 16 * round(tokens**0.5)
        recorder = Recorder(names(concepts), CONTRAST, family.NAME, family.DEFAULTS, levels, layers, (side, side))
        for level in levels[:-1]:
            recorder.add(level, {"output": torch.randn(layers, 1, concepts + len(CONTRAST), tokens)})
            yield recorder

    def preview(self, steps: int, tokens: int, concepts: int) -> list[float]:
        """Seconds that the preview takes in each step beside the model, the server's JPEG included."""
        live, took = None, []
        for recorder in self.recorded(steps, tokens, concepts):
            live = live or LiveSaliency(recorder)
            start = time.perf_counter()
            picture(live.newest()).save(io.BytesIO(), "JPEG", quality=95)
            took.append(time.perf_counter() - start)
        return took

    def regions(self, steps: int, tokens: int, concepts: int, shaping: Shaping) -> list[float]:
        """Seconds that it takes after each step to find a region of all the words, in all steps so far, beside the model."""
        rule, took = RegionRule(shaping=shaping, min_presence=0.0), []
        for recorder in self.recorded(steps, tokens, concepts):
            start = time.perf_counter()
            rule.region(recorder.finish(recorder.default_layers)["output"], (side(tokens), side(tokens)))
            took.append(time.perf_counter() - start)
        return took

    def finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def sample(self, tokens: int, steps: int = 1) -> torch.Tensor:
        latent = torch.zeros(self.batch, 16, side(tokens), side(tokens))
        noise = comfy.sample.prepare_noise(latent, 0)
        mask = None if self.share is None else left(self.share, tokens)[:, None]
        result = comfy.sample.sample(self.model, noise, steps, 1.0, "euler", "simple", self.positive, prompt(), latent,
                                     noise_mask=mask, disable_pbar=True, seed=0)
        self.finish()
        return result

    def look_at_picture(self, tokens: int, blocks="auto") -> None:
        """One pass of Concept Attention (Image)."""
        inputs = ConceptInputs(names(11), CONTRAST, vectors(11 + len(CONTRAST)), blocks=blocks)
        latent = torch.randn(self.batch, 16, side(tokens), side(tokens), generator=torch.Generator().manual_seed(3))
        host.record_image(self.model, family, inputs, latent, (side(tokens) * 8,) * 2, prompt(), 0.5, [0])
        self.finish()


def side(tokens: int) -> int:
    """The latent's side for so many image tokens."""
    return 2 * round(tokens**0.5)


def left(share: float, tokens: int) -> torch.Tensor:
    """A mask 1 x h x w of the latent, of a share of the picture from its left edge on."""
    return (torch.arange(side(tokens)) < share * side(tokens)).float().expand(1, side(tokens), -1)


def prompt():
    generator = torch.Generator().manual_seed(2)
    return [[torch.randn(1, TEXT, 4096, generator=generator), {"pooled_output": torch.randn(1, 768, generator=generator), "guidance": 3.5}]]
