"""What several workflows have in common: the model files, the groups of nodes at their beginning and end."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.concepts import DEFAULT_CONTRAST
from . import workflow_notes as notes
from .workflow_graph import Graph, Node, Output
from .world import CONTRAST

_HUGGING_FACE = "https://huggingface.co"


def _file(name: str, path: str, directory: str) -> dict:
    return {"name": name, "url": f"{_HUGGING_FACE}/{path}/{name}", "directory": directory}


# names, addresses and folders as in ComfyUI's own Flux and SAM3 workflows (comfyui-workflow-templates 0.11, blueprints of 0.29)
FLUX_DEV = _file("flux1-dev.safetensors", "Comfy-Org/flux1-dev/resolve/main", "diffusion_models")
FLUX_FILL = _file("flux1-fill-dev.safetensors", "Comfy-Org/flux1-dev/resolve/main/split_files/diffusion_models", "diffusion_models")
CLIP_L = _file("clip_l.safetensors", "comfyanonymous/flux_text_encoders/resolve/main", "text_encoders")
T5 = _file("t5xxl_fp16.safetensors", "comfyanonymous/flux_text_encoders/resolve/main", "text_encoders")
VAE = _file("ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae", "vae")
SAM3 = _file("sam3.1_multiplex_fp16.safetensors", "Comfy-Org/sam3.1/resolve/main/checkpoints", "checkpoints")

# the tiny model decides early what it draws: regions have to begin early, and new noise in every step lets it decide again
EARLY = {"start_percent": 0.12, "min_presence": 0.1}
ANEW = {"sampler_name": "euler_ancestral", "steps": 24}
STRONGLY = {"strength": 4.0}  # of a prompt in its mask; at 1 the tiny model draws there what the prompt of the whole asks for
DRAWING = "example.png"  # lies in the input folder of every ComfyUI
THE_DRAWING = "a child's drawing of a girl with yellow hair in a pink dress on a green hill under a blue sky with clouds"


@dataclass
class Setting:
    """What differs between a workflow for Flux.1 and the same for the demo model."""

    demo: bool
    unet: dict

    @property
    def size(self) -> dict:
        return {"width": 256, "height": 256} if self.demo else {"width": 1024, "height": 1024}

    @property
    def sampling(self) -> dict:
        return {"cfg": 3.0} if self.demo else {"cfg": 1.0}

    @property
    def contrast(self) -> dict:
        return {"contrast": CONTRAST} if self.demo else {}

    def pick(self, flux, demo):
        """The one of two that belongs to this setting."""
        return demo if self.demo else flux

    def __getitem__(self, text: str) -> str:
        return f"{text} (demo)" if self.demo else text


@dataclass
class Models:
    model: Output
    clip: Output
    vae: Output
    nodes: list[Node]
    files: list[dict]


def models(g: Graph, at: Setting) -> Models:
    """The loaders, or the demo model."""
    if at.demo:
        demo = g.add("ConceptSaliencyDemoModel")
        return Models(demo["model"], demo["clip"], demo["vae"], [demo], [])
    unet = g.add("UNETLoader", unet_name=at.unet["name"], models=[at.unet])
    clip = g.add("DualCLIPLoader", clip_name1=CLIP_L["name"], clip_name2=T5["name"], models=[CLIP_L, T5])
    vae = g.add("VAELoader", vae_name=VAE["name"], models=[VAE])
    return Models(unet["MODEL"], clip["CLIP"], vae["VAE"], [unet, clip, vae], [at.unet, CLIP_L, T5, VAE])


def begin(g: Graph, at: Setting, text: str, more_files: list[dict] = ()) -> Models:
    """The note and the models, on the left of every workflow."""
    m = models(g, at)
    g.place("1  Model", m.nodes, below=g.note(notes.page(text, at.demo, [*m.files, *([] if at.demo else more_files)])))
    return m


def prompts(g: Graph, at: Setting, clip: Output, title: str, text: str,
            guidance: float | None = 3.5) -> tuple[Output, Output, list[Node]]:
    """Positive and negative conditioning, and their nodes."""
    positive = g.add("CLIPTextEncode", title, clip=clip, text=text)
    negative = g.add("CLIPTextEncode", at.pick("Negative prompt (not used at cfg 1)", "Negative prompt (empty)"), clip=clip, tall=110)
    if at.demo or guidance is None:  # the demo model has no guidance of its own
        return positive["CONDITIONING"], negative["CONDITIONING"], [positive, negative]
    guided = g.add("FluxGuidance", conditioning=positive["CONDITIONING"], guidance=guidance)
    return guided["CONDITIONING"], negative["CONDITIONING"], [positive, guided, negative]


@dataclass
class Picture:
    image: Output
    description: Output  # conditioning


def existing_picture(g: Graph, at: Setting, m: Models, flux_words: str, demo_words: str, seed: int = 7) -> Picture:
    """A picture to work on: loaded, or drawn by the demo model, so that nothing has to lie in the input folder."""
    if not at.demo:
        load = g.add("LoadImage", image=DRAWING)
        described = g.add("CLIPTextEncode", "What is in the picture (helps, but is not needed)", clip=m.clip, text=flux_words, tall=140)
        g.place("2  Your picture", [load, described])
        return Picture(load["IMAGE"], described["CONDITIONING"])
    positive, negative, nodes = prompts(g, at, m.clip, "What is in the picture", demo_words)
    latent = g.add("EmptySD3LatentImage", **at.size)
    sampled = g.add("KSampler", model=m.model, positive=positive, negative=negative, latent_image=latent["LATENT"], seed=seed,
                    **at.sampling)
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    g.place("2  A picture to work on", [*nodes, latent, sampled, decoded])
    return Picture(decoded["IMAGE"], positive)


def look(g: Graph, at: Setting, m: Models, picture: Picture, flux_concepts: str, demo_concepts: str) -> Output:
    """Saliency of an existing picture."""
    seen = g.add("ConceptAttentionImage", model=m.model, clip=m.clip, vae=m.vae, image=picture.image, conditioning=picture.description,
                 concepts=at.pick(flux_concepts, demo_concepts), noise_level=at.pick(0.5, 0.3), samples=3,
                 megapixels=at.pick(1.0, 0.07), **at.contrast)
    maps = g.add("ConceptSaliency", recordings=seen["recordings"], image=picture.image)
    g.place("3  Where Flux sees each word", [seen, maps])
    return maps["saliency"]


def region(g: Graph, at: Setting, title: str, model: Output, m: Models, conditioning: Node, word: str, rivals: str,
           **settings) -> Node:
    """A Concept Region for one word."""
    return g.add("ConceptRegion", title, model=model, clip=m.clip, conditioning=conditioning["CONDITIONING"],
                 concepts=word, contrast=f"{rivals}, {at.pick(DEFAULT_CONTRAST, CONTRAST)}", grow=at.pick(16, 4), feather=at.pick(32, 8),
                 **settings)


def drawn_with_regions(g: Graph, at: Setting, m: Models, regions: list[Node], positive: Output, negative: Output, prefix: str,
                       **sampling) -> None:
    """The last groups: sampled with regions and, from the same seed, without; where their words were seen."""
    latent = g.add("EmptySD3LatentImage", **at.size)
    sampled = [g.add("KSampler", title, model=model, positive=positive, negative=negative, latent_image=latent["LATENT"],
                     **at.sampling, **sampling)
               for title, model in (("With regions", regions[-1]["model"]), ("Without", m.model))]
    pictures = [g.add("VAEDecode", samples=one["LATENT"], vae=m.vae) for one in sampled]
    g.place("4  The same run with and without", [latent, *sampled], pictures)
    maps = [g.add("ConceptSaliency", node.title, recordings=node["recordings"], samples=sampled[0]["LATENT"], image=pictures[1]["IMAGE"],
                  end_percent=round(node.widgets["start_percent"] - 0.01, 2), tall=640) for node in regions]
    g.place("5  Where the words were seen then", maps)
    shown = g.add("PreviewImage", "Without", images=pictures[1]["IMAGE"], tall=420)
    saved = g.add("SaveImage", "With regions", images=pictures[0]["IMAGE"], filename_prefix=f"concept_saliency/{prefix}", tall=420)
    g.place("6  Without and with", [shown, saved])


def repainted(g: Graph, picture: Picture, before: list[Node], sampling: list[Node], vae: Output, mask: Output, prefix: str,
              title: str = "5  Repaint") -> None:
    """The last two groups: sampled, decoded, laid over the picture inside the mask only; shown beside it and saved."""
    decoded = g.add("VAEDecode", samples=sampling[-1]["LATENT"], vae=vae)
    whole = g.add("ImageCompositeMasked", "Keep every pixel outside the mask", destination=picture.image, source=decoded["IMAGE"],
                  mask=mask)
    g.place(title, before, [*sampling, decoded, whole])
    shown = g.add("PreviewImage", "Before", images=picture.image, tall=420)
    saved = g.add("SaveImage", "After", images=whole["IMAGE"], filename_prefix=f"concept_saliency/{prefix}", tall=420)
    g.place("6  Before and after", [shown, saved])
