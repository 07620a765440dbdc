"""Demo Flux (tiny): the bundled model as ComfyUI's own MODEL, CLIP and VAE."""

import comfy.ldm.flux.model
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..demo.flux import FluxConfig
from ..demo.pipeline import LORA, WEIGHTS, load_defaults
from ..demo.text import LENGTH, PAD, TextEncoder, Tokenizer
from . import host
from .types import CATEGORY

folder_paths.add_model_folder_path("loras", str(LORA.parent))  # for the template lora_in_a_region (demo)


class ConceptSaliencyDemoModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConceptSaliencyDemoModel",
            display_name="Demo Flux (tiny)",
            category=CATEGORY,
            description="A very small Flux that comes with this pack and runs on any CPU. It draws simple scenes of 256 x 256 pixels: "
                        + ", ".join(Tokenizer().known()) + ".",
            inputs=[],
            outputs=[io.Model.Output("model"), io.Clip.Output("clip"), io.Vae.Output("vae")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_model(), load_clip(), load_vae())


def load_model():
    """The diffusion model, as ComfyUI's FluxSchnell (no guidance embedding, no timestep shift)."""
    weights = comfy.utils.load_torch_file(str(WEIGHTS / "flux.safetensors"), safe_load=True)
    settings = {**FluxConfig().to_dict(), "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
                "axes_dim": list(FluxConfig().axes_dim), "txt_ids_dims": []}
    known = comfy.ldm.flux.model.FluxParams.__dataclass_fields__.keys() | {"image_model"}
    config = comfy.supported_models.FluxSchnell({k: v for k, v in settings.items() if k in known})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(weights, "")
    model.load_model_weights(dict(weights), "")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=comfy.model_management.get_torch_device(),
                                               offload_device=comfy.model_management.unet_offload_device())
    host.attach_defaults(patcher, load_defaults()[0])
    return patcher


def load_clip():
    """The text encoder, built as ComfyUI builds any: from a tokenizer class and a model class."""
    target = comfy.supported_models_base.ClipTarget(DemoTokenizer, DemoTextModel)
    clip = comfy.sd.CLIP(target)
    clip.load_sd(comfy.utils.load_torch_file(str(WEIGHTS / "text.safetensors"), safe_load=True))
    return clip


def load_vae():
    """The codec; ComfyUI recognises it as a TAESD with Flux's latents."""
    return comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(WEIGHTS / "codec.safetensors"), safe_load=True))


class DemoTokenizer:
    """The tiny world's tokenizer with the methods that ComfyUI's CLIP calls. All weights are 1; words it does not have are refused."""

    def __init__(self, embedding_directory=None, tokenizer_data=None):
        self.tokenizer = Tokenizer()

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs) -> dict:
        self.tokenizer.check(text)
        numbers = self.tokenizer(text)
        numbers += [PAD] * max(1, LENGTH - len(numbers))
        return {"tiny": [[(n, 1.0, i) if return_word_ids else (n, 1.0) for i, n in enumerate(numbers)]]}

    def untokenize(self, pairs) -> list:
        words = {number: word for word, number in self.tokenizer.numbers.items()}
        return [(pair, words.get(pair[0], "")) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class DemoTextModel(torch.nn.Module):
    """The tiny world's text encoder with the methods that ComfyUI's CLIP calls."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__()
        self.encoder = TextEncoder(len(Tokenizer())).to(device=device, dtype=torch.float32)
        self.dtypes = {torch.float32}

    def set_clip_options(self, options: dict) -> None:
        """Layers cannot be skipped in a model of one layer."""

    def reset_clip_options(self) -> None:
        """There is nothing to reset."""

    def encode_token_weights(self, tokens: dict):
        numbers = torch.tensor([[n for n, *_ in row] for row in tokens["tiny"]], device=self.encoder.embedding.weight.device)
        cond = self.encoder(numbers).flatten(0, 1)[None]
        return cond, torch.zeros(1, FluxConfig().vec_in_dim, device=cond.device)

    def load_sd(self, weights: dict):
        return self.encoder.load_state_dict(weights)
