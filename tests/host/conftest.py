"""ComfyUI in this process, on the CPU, with the pack importable; small Flux models with golden weights."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
HOST = Path(os.environ["COMFYUI_HOST"])

sys.path.insert(0, str(HERE))
import torchvision_shim  # noqa: E402

torchvision_shim.make_importable()
sys.path.insert(0, str(HOST))
import utils.install_util  # noqa: E402, F401  (before a dependency brings a "utils" of its own, as in the server)
from comfy.cli_args import args  # noqa: E402

args.cpu = True
pytest_plugins = ["browser"]


def pytest_configure(config):
    """Import the pack under its own name, wherever the repository lies and whatever its folder is called."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("concept_saliency", REPOSITORY / "__init__.py",
                                                  submodule_search_locations=[str(REPOSITORY)])
    sys.modules["concept_saliency"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["concept_saliency"])


class Clip:
    """Stands for a text encoder: every phrase has its own vector, drawn from its letters or given in a table."""

    def __init__(self, width: int, table: dict[str, torch.Tensor] | None = None, key: str = "t5xxl"):
        self.width, self.table, self.key = width, table or {}, key

    def tokenize(self, text: str, **kwargs):
        return {self.key: [[(7, 1.0)] * len(text.split()) + [(1, 1.0), (0, 1.0)]], "text": text}

    def encode_from_tokens(self, tokens):
        text = tokens["text"]
        vector = self.table.get(text)
        if vector is None:
            vector = torch.randn(self.width, generator=torch.Generator().manual_seed(sum(map(ord, text))))
        return vector.expand(1, len(tokens[self.key][0]), -1)


class SmallFlux:
    """A golden file's model as ComfyUI's own MODEL, with what it takes to sample it.

    dtype: of the weights; computed: of the arithmetic, where that is another. edit: changes the weights and
    the host's settings for the model before it is built.
    """

    channels, frames = 16, ()
    settings = dict(image_model="flux", out_channels=16, patch_size=2, txt_ids_dims=[])  # beside what the golden file tells

    def __init__(self, golden, in_channels: int | None = None, dtype=torch.float32, computed=None, edit=None):
        import comfy.ldm.flux.model
        import comfy.model_patcher

        self.golden, self.about = golden, golden.about
        in_channels = in_channels or self.channels
        config = {**self.about["config"], **self.settings, "in_channels": in_channels}
        known = comfy.ldm.flux.model.FluxParams.__dataclass_fields__.keys() | {"image_model"}
        settings = self.kind()({k: v for k, v in config.items() if k in known})
        settings.set_inference_dtype(dtype, computed)
        weights = golden.weights()
        if in_channels > self.channels:  # a Fill model: what it sees besides the noisy latent has weights too
            more = torch.randn(len(weights["img_in.weight"]), (in_channels - 16) * 4, generator=torch.Generator().manual_seed(0))
            weights["img_in.weight"] = torch.cat((weights["img_in.weight"], 0.1 * more), dim=1)
        if edit is not None:
            weights = edit(weights, settings)
        model = settings.get_model({})
        model.load_model_weights(weights, "")
        self.patcher = comfy.model_patcher.ModelPatcher(model.eval(), torch.device("cpu"), torch.device("cpu"))
        self.width = config["context_in_dim"]

    def kind(self):
        import comfy.supported_models

        return comfy.supported_models.Flux if self.about["config"]["guidance_embed"] else comfy.supported_models.FluxSchnell

    def conditioning(self, seed: int = 0, tokens: int = 9, **more):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, tokens, self.width, generator=generator)
        pooled = torch.randn(1, self.about["config"].get("vec_in_dim", 1), generator=generator)
        return [[text, {"pooled_output": pooled, "guidance": 3.5, **more}]]

    def sample(self, model, seed=0, batch=1, size=(12, 16), steps=3, cfg=1.0, sampler="euler", positive=None, negative=None, **more):
        import comfy.sample

        latent = torch.zeros(batch, self.channels, *self.frames, *size)
        noise = comfy.sample.prepare_noise(latent, seed)
        return comfy.sample.sample(model, noise, steps, cfg, sampler, "simple", positive or self.conditioning(1),
                                   negative or self.conditioning(2), latent, disable_pbar=True, seed=seed, **more)


class SmallFlux2(SmallFlux):
    """The same for Flux.2. bare: without the padding of the prompt to 512 tokens, which golden values know nothing of."""

    channels = 128
    settings = dict(image_model="flux2", out_channels=128, patch_size=1, txt_ids_dims=[3], vec_in_dim=None, qkv_bias=False,
                    guidance_embed=True, global_modulation=True, mlp_silu_act=True, ops_bias=False,
                    default_ref_method="index", ref_index_scale=10.0)

    def kind(self):
        import comfy.supported_models

        return comfy.supported_models.Flux2

    @classmethod
    def bare(cls, golden):
        import comfy.model_base

        def edit(weights, settings):
            settings.get_model = lambda *args, **kwargs: comfy.model_base.Flux(settings)
            return weights

        return cls(golden, edit=edit)


def golden_module():
    import importlib.util

    spec = importlib.util.spec_from_file_location("headless_conftest", HERE.parent / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden():
    return golden_module().Golden


@pytest.fixture(scope="session")
def flux(golden):
    return SmallFlux(golden("flux1_dev_like"))


@pytest.fixture(scope="session")
def schnell(golden):
    return SmallFlux(golden("flux1_schnell_like"))


@pytest.fixture(scope="session")
def flux2(golden):
    import comfy.supported_models

    if not hasattr(comfy.supported_models, "Flux2"):
        pytest.skip("this ComfyUI has no Flux.2")
    return SmallFlux2(golden("flux2_like"))


@pytest.fixture(scope="session")
def qwen():
    from small_models import SmallQwen

    return SmallQwen(SmallQwen.drawn())


@pytest.fixture(scope="session")
def sd35():
    from small_models import SmallSD35

    return SmallSD35(SmallSD35.drawn())


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real ComfyUI with previews, started when the first test asks for it and used by all that need no other; the pack lies in its
    custom_nodes under live_server.FOLDER."""
    from live_server import FOLDER, Server

    with Server(HOST, tmp_path_factory.mktemp("comfyui"), "--preview-method", "latent2rgb", name=FOLDER) as running:
        shutil.copy(HOST / "input" / "example.png", running.folder / "input")  # as in every ComfyUI
        yield running


@pytest.fixture
def clip(flux):
    return Clip(flux.width)


@pytest.fixture
def apply(flux, clip):
    """Concept Attention on the small Flux: apply(concepts, **settings) -> model, runs."""
    from concept_saliency.nodes.concept_attention import ConceptAttentionApply

    def run(concepts="cat, dog", contrast="sky", model=None, clip=clip, start_percent=0.0, end_percent=1.0, token="mean",
            cross_attention=False, blocks="auto"):
        return ConceptAttentionApply.execute(model or flux.patcher, clip, concepts, contrast, start_percent, end_percent, token,
                                             cross_attention, blocks).result

    return run


@pytest.fixture
def check(flux, apply):
    """One cell of the matrix: check(model, sample, prompts) -> recording. See oracle.check."""
    import oracle

    def run(model=None, sample=flux.sample, prompts=None, **settings):
        return oracle.check(apply, model or flux.patcher, sample, prompts or flux.conditioning(1), **settings)

    return run
