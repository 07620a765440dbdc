"""Writes workflows/*.json and subgraphs/*.json: python -m concept_saliency.demo.make_workflows

Every workflow is there twice: for Flux.1, and for the tiny Flux of this pack, on which it runs in seconds on any CPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from . import workflow_notes as notes
from .workflow_graph import Graph, Node, Output
from .world import CONTRAST

ROOT = Path(__file__).parent.parent
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
    sampled = g.add("KSampler", model=m.model, positive=positive, negative=negative, latent_image=latent["LATENT"], seed=seed, **at.sampling)
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    g.place("2  A picture to work on", [*nodes, latent, sampled, decoded])
    return Picture(decoded["IMAGE"], positive)


def look(g: Graph, at: Setting, m: Models, picture: Picture, flux_concepts: str, demo_concepts: str) -> Output:
    """Saliency of an existing picture."""
    seen = g.add("ConceptAttentionImage", model=m.model, clip=m.clip, vae=m.vae, image=picture.image, conditioning=picture.description,
                 concepts=at.pick(flux_concepts, demo_concepts), noise_level=at.pick(0.5, 0.6), samples=3, **at.contrast)
    maps = g.add("ConceptSaliency", recordings=seen["recordings"], image=picture.image)
    g.place("3  Where Flux sees each word", [seen, maps])
    return maps["saliency"]


def repainted(g: Graph, picture: Picture, before: list[Node], sampling: list[Node], vae: Output, mask: Output, prefix: str) -> None:
    """The last two groups: sampled, decoded, laid over the picture inside the mask only; shown beside it and saved."""
    decoded = g.add("VAEDecode", samples=sampling[-1]["LATENT"], vae=vae)
    whole = g.add("ImageCompositeMasked", "Keep every pixel outside the mask", destination=picture.image, source=decoded["IMAGE"], mask=mask)
    g.place("5  Repaint", before, [*sampling, decoded, whole])
    shown = g.add("PreviewImage", "Before", images=picture.image, tall=420)
    saved = g.add("SaveImage", "After", images=whole["IMAGE"], filename_prefix=f"concept_saliency/{prefix}", tall=420)
    g.place("6  Before and after", [shown, saved])


def see(at: Setting) -> Graph:
    g = Graph("quickstart_demo" if at.demo else "generate_see_mask")
    m = begin(g, at, notes.SEE)
    words = g.add("ConceptAttentionApply", model=m.model, clip=m.clip, concepts=at.pick("dragon, castle, sky", "dragon, house, grass"),
                  **at.contrast)
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt", at.pick("a dragon on the roof of a castle under a cloudy sky",
                                                                       "a dragon and a house on grass"))
    latent = g.add("EmptySD3LatentImage", **at.size)
    g.place("2  Words and prompt", [words, *nodes, latent])
    sampled = g.add("KSampler", model=words["model"], positive=positive, negative=negative, latent_image=latent["LATENT"],
                    **{**at.sampling, "steps": at.pick(20, 24)})
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    if at.demo:
        shown = g.add("PreviewImage", "Picture", images=decoded["IMAGE"])
    else:
        shown = g.add("SaveImage", "Picture", images=decoded["IMAGE"], filename_prefix="concept_saliency/picture")
    g.place("3  Picture", [sampled, decoded, shown])
    maps = g.add("ConceptSaliency", recordings=words["recordings"], samples=sampled["LATENT"], image=decoded["IMAGE"], tall=760)
    g.place("4  Where Flux sees each word", [maps])
    mask = g.add("ConceptSaliencyToMask", saliency=maps["saliency"], image=decoded["IMAGE"], concept="dragon", tall=760)
    g.place("5  Mask of one word", [mask])
    return g


def repaint(at: Setting) -> Graph:
    g = Graph(at["repaint_by_words"])
    m = begin(g, at, notes.REPAINT)
    picture = existing_picture(g, at, m, THE_DRAWING, "a cat and a tree on grass")
    saliency = look(g, at, m, picture, "dress, face, hair, sky, hill", "cat, tree")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("dress", "cat"),
                 grow=at.pick(12, 6), feather=at.pick(8, 3), fill_holes=True, tall=640)
    g.place("4  Mask of what to replace", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: the picture as it shall be", at.pick(
        THE_DRAWING.replace("pink dress", "red raincoat with yellow buttons"), "a robot and a tree on grass"))
    encoded = g.add("VAEEncode", pixels=picture.image, vae=m.vae)
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    sampled = g.add("KSampler", model=m.model, positive=positive, negative=negative, latent_image=noise["LATENT"], denoise=0.95, **at.sampling)
    repainted(g, picture, [*nodes, encoded], [noise, sampled], m.vae, mask["mask"], "repainted")
    return g


def background(at: Setting) -> Graph:
    g = Graph(at["change_background"])
    m = begin(g, at, notes.BACKGROUND)
    picture = existing_picture(g, at, m, THE_DRAWING, "a house on grass", seed=3)
    saliency = look(g, at, m, picture, "girl, sky, hill, clouds", "house, grass")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("girl", "house"),
                 grow=at.pick(6, 3), feather=at.pick(16, 4), fill_holes=True, invert=True, tall=640)
    g.place("4  Mask of all but the subject", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: the subject in its new place", at.pick(
        "a child's drawing of a girl with yellow hair in a pink dress on the moon, grey craters, a black sky full of stars", "a house on snow"))
    encoded = g.add("VAEEncode", pixels=picture.image, vae=m.vae)
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    softly = g.add("DifferentialDiffusion", model=m.model)
    sampled = g.add("KSampler", model=softly["MODEL"], positive=positive, negative=negative, latent_image=noise["LATENT"], **at.sampling)
    repainted(g, picture, [*nodes, encoded, softly], [noise, sampled], m.vae, mask["mask"], "background")
    return g


def fill(at: Setting) -> Graph:
    g = Graph(at["flux_fill_inpainting"])
    m = begin(g, at, notes.FILL)
    picture = existing_picture(g, at, m, THE_DRAWING, "a fish and a flower on sand", seed=5)
    saliency = look(g, at, m, picture, "clouds, girl, sky, hill", "fish, flower")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("clouds", "fish"),
                 grow=at.pick(24, 6), feather=at.pick(4, 3), fill_holes=True, tall=640)
    g.place("4  Mask of what to replace", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: what the mask shall hold", at.pick(
        THE_DRAWING.replace("clouds", "hot-air balloons"), "a mushroom and a flower on sand"), guidance=30.0)
    room = g.add("InpaintModelConditioning", positive=positive, negative=negative, vae=m.vae, pixels=picture.image, mask=mask["mask"])
    sampled = g.add("KSampler", model=m.model, positive=room["positive"], negative=room["negative"], latent_image=room["latent"],
                    **at.sampling)
    repainted(g, picture, nodes, [room, sampled], m.vae, mask["mask"], "filled")
    return g


def sam3(at: Setting) -> Graph:
    g = Graph(at["sam3_prompts"])
    m = begin(g, at, notes.SAM3, [SAM3])
    picture = existing_picture(g, at, m, THE_DRAWING, "a robot and an apple on floor", seed=11)
    saliency = look(g, at, m, picture, "girl, sky, hill, clouds", "robot, apple")
    points = g.add("ConceptSaliencyToSAM3", saliency=saliency, concept=at.pick("girl", "robot"))
    inside = g.add("PreviewAny", "Points inside", source=points["positive_coords"])
    outside = g.add("PreviewAny", "Points outside", source=points["negative_coords"])
    boxes = g.add("DrawBBoxes", image=picture.image, bboxes=points["bboxes"])
    shown = g.add("PreviewImage", "Boxes", images=boxes["out_image"])
    g.place("4  Points and boxes for SAM3", [points, inside, outside], [boxes, shown])
    if not at.demo:
        loader = g.add("CheckpointLoaderSimple", ckpt_name=SAM3["name"], models=[SAM3])
        found = g.add("SAM3_Detect", model=loader["MODEL"], image=picture.image, positive_coords=points["positive_coords"],
                      negative_coords=points["negative_coords"])
        mask = g.add("MaskPreview", "SAM3's mask", mask=found["masks"])
        g.place("5  Outline by SAM3", [loader, found, mask])
    return g


def two(at: Setting) -> Graph:
    g = Graph(at["two_concepts_two_prompts"])
    m = begin(g, at, notes.TWO)
    first, second = "cat", at.pick("dog", "robot")
    words = g.add("ConceptAttentionApply", model=m.model, clip=m.clip, concepts=f"{first}, {second}", **at.contrast)
    whole, negative, nodes = prompts(g, at, m.clip, "Prompt of the first picture, and of the whole",
                                     at.pick("a cat and a dog on a sofa", "a cat and a robot on grass"), guidance=None)
    one = g.add("CLIPTextEncode", "Prompt for the first thing", clip=m.clip, text=at.pick("a white persian cat", "a flower"))
    other = g.add("CLIPTextEncode", "Prompt for the second thing", clip=m.clip, text=at.pick("a black labrador", "a balloon"))
    g.place("2  Words and prompts", [words, *nodes, one, other])
    latent = g.add("EmptySD3LatentImage", **at.size)
    sampled = g.add("KSampler", model=words["model"], positive=whole, negative=negative, latent_image=latent["LATENT"], **at.sampling)
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    g.place("3  First picture", [latent, sampled, decoded])
    maps = g.add("ConceptSaliency", recordings=words["recordings"], samples=sampled["LATENT"], image=decoded["IMAGE"], tall=760)
    masks = [g.add("ConceptSaliencyToMask", title, saliency=maps["saliency"], image=decoded["IMAGE"], concept=name, grow=at.pick(8, 3),
                   fill_holes=True, tall=540) for title, name in (("First thing", first), ("Second thing", second))]
    g.place("4  Where each thing is", [maps], masks)
    places = [g.add("ConditioningSetMask", conditioning=prompt["CONDITIONING"], mask=mask["mask"])
              for prompt, mask in zip((one, other), masks)]
    both = g.add("ConditioningCombine", conditioning_1=places[0]["CONDITIONING"], conditioning_2=places[1]["CONDITIONING"])
    all_three = g.add("ConditioningCombine", conditioning_1=both["CONDITIONING"], conditioning_2=whole)
    again = g.add("KSampler", model=m.model, positive=all_three["CONDITIONING"], negative=negative, latent_image=latent["LATENT"], **at.sampling)
    redone = g.add("VAEDecode", samples=again["LATENT"], vae=m.vae)
    g.place("5  Each place its prompt", [*places, both, all_three, again, redone])
    before = g.add("PreviewImage", "Before", images=decoded["IMAGE"], tall=420)
    after = g.add("SaveImage", "From three prompts", images=redone["IMAGE"], filename_prefix="concept_saliency/two_prompts", tall=420)
    g.place("6  Before and after", [before, after])
    return g


def workflows() -> dict[str, dict]:
    """Every workflow's file name and content."""
    graphs = [make(Setting(demo, FLUX_FILL if make is fill else FLUX_DEV))
              for make in (see, repaint, background, fill, sam3, two) for demo in (False, True)]
    return {f"{g.name}.json": g.to_json() for g in graphs}


def text(content: dict) -> str:
    """A file's content as it is written."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    from .make_blueprints import blueprints

    for folder, files in (("workflows", workflows()), ("subgraphs", blueprints())):
        (ROOT / folder).mkdir(exist_ok=True)
        for old in (ROOT / folder).glob("*.json"):
            if old.name not in files:
                old.unlink()
        for name, content in files.items():
            (ROOT / folder / name).write_text(text(content), encoding="utf-8")


if __name__ == "__main__":
    main()
