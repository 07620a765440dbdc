"""Writes workflows/*.json and subgraphs/*.json: python -m concept_saliency.demo.make_workflows

Every workflow is there twice: for Flux.1, and for the tiny Flux of this pack, on which it runs in seconds on any CPU.
"""

from __future__ import annotations

import json
from pathlib import Path

from . import workflow_notes as notes
from .pipeline import LORA
from .workflow_graph import Graph
from .workflow_parts import (
    ANEW,
    EARLY,
    FLUX_DEV,
    FLUX_FILL,
    SAM3,
    STRONGLY,
    THE_DRAWING,
    Setting,
    begin,
    drawn_with_regions,
    existing_picture,
    look,
    prompts,
    region,
    repainted,
)

ROOT = Path(__file__).parent.parent


def see(at: Setting) -> Graph:
    # A template is opened as wide as the window, and where that is below 0.57 of its size the canvas leaves out all words
    g = Graph("quickstart_demo" if at.demo else "generate_see_mask", between=100)
    m = begin(g, at, notes.SEE)
    words = g.add("ConceptAttentionApply", model=m.model, clip=m.clip, concepts=at.pick("dragon, castle, sky", "balloon, tree, sand"),
                  **at.contrast)
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt", at.pick("a dragon on the roof of a castle under a cloudy sky",
                                                                       "a balloon and a tree on sand"))
    latent = g.add("EmptySD3LatentImage", **at.size)
    g.place("2  Words and prompt", [words, *nodes, latent])
    sampled = g.add("KSampler", model=words["model"], positive=positive, negative=negative, latent_image=latent["LATENT"],
                    **{**at.sampling, "steps": at.pick(20, 24), "seed": at.pick(7, 8)})  # the demo's seed is chosen
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    if at.demo:
        shown = g.add("PreviewImage", "Picture", images=decoded["IMAGE"])
    else:
        shown = g.add("SaveImage", "Picture", images=decoded["IMAGE"], filename_prefix="concept_saliency/picture")
    g.place("3  Picture", [sampled, decoded, shown])
    maps = g.add("ConceptSaliency", recordings=words["recordings"], samples=sampled["LATENT"], image=decoded["IMAGE"], tall=760)
    g.place("4  Where Flux sees each word", [maps])
    mask = g.add("ConceptSaliencyToMask", saliency=maps["saliency"], image=decoded["IMAGE"], concept=at.pick("dragon", "tree"), tall=760)
    g.place("5  Mask of one word", [mask])
    return g


def repaint(at: Setting) -> Graph:
    g = Graph(at["repaint_by_words"])
    m = begin(g, at, notes.REPAINT)
    picture = existing_picture(g, at, m, THE_DRAWING, "a cat and a tree on grass", seed=11)
    saliency = look(g, at, m, picture, "dress, face, hair, sky, hill", "cat, tree")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("dress", "cat"),
                 grow=at.pick(12, 6), feather=at.pick(8, 3), fill_holes=True, tall=720)
    g.place("4  Mask of what to replace", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: the picture as it shall be", at.pick(
        THE_DRAWING.replace("pink dress", "red raincoat with yellow buttons"), "a robot and a tree on grass"))
    encoded = g.add("VAEEncode", pixels=picture.image, vae=m.vae)
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    sampled = g.add("KSampler", model=m.model, positive=positive, negative=negative, latent_image=noise["LATENT"], denoise=0.95,
                    **at.sampling)
    repainted(g, picture, [*nodes, encoded], [noise, sampled], m.vae, mask["mask"], "repainted")
    return g


def background(at: Setting) -> Graph:
    g = Graph(at["change_background"])
    m = begin(g, at, notes.BACKGROUND)
    picture = existing_picture(g, at, m, THE_DRAWING, "a house on grass", seed=0)
    saliency = look(g, at, m, picture, "girl, sky, hill, clouds", "house, grass")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("girl", "house"),
                 grow=at.pick(6, 3), feather=at.pick(16, 4), fill_holes=True, invert=True, tall=720)
    g.place("4  Mask of all but the subject", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: the subject in its new place", at.pick(
        "a child's drawing of a girl with yellow hair in a pink dress on the moon, grey craters, a black sky full of stars",
        "a house on snow"))
    encoded = g.add("VAEEncode", pixels=picture.image, vae=m.vae)
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    softly = g.add("DifferentialDiffusion", model=m.model)
    sampled = g.add("KSampler", model=softly["MODEL"], positive=positive, negative=negative, latent_image=noise["LATENT"], **at.sampling)
    repainted(g, picture, [*nodes, encoded, softly], [noise, sampled], m.vae, mask["mask"], "background")
    return g


def fill(at: Setting) -> Graph:
    g = Graph(at["flux_fill_inpainting"])
    m = begin(g, at, notes.FILL)
    picture = existing_picture(g, at, m, THE_DRAWING, "a fish and a flower on sand", seed=7)
    saliency = look(g, at, m, picture, "clouds, girl, sky, hill", "fish, flower")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("clouds", "fish"),
                 grow=at.pick(24, 6), feather=at.pick(4, 3), fill_holes=True, tall=720)
    g.place("4  Mask of what to replace", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt: what the mask shall hold", at.pick(
        THE_DRAWING.replace("clouds", "hot-air balloons"), "a balloon and a flower on sand"), guidance=30.0)
    room = g.add("InpaintModelConditioning", positive=positive, negative=negative, vae=m.vae, pixels=picture.image, mask=mask["mask"])
    sampled = g.add("KSampler", model=m.model, positive=room["positive"], negative=room["negative"], latent_image=room["latent"],
                    **at.sampling)
    repainted(g, picture, nodes, [room, sampled], m.vae, mask["mask"], "filled")
    return g


def erase(at: Setting) -> Graph:
    g = Graph(at["erase_by_words"])
    m = begin(g, at, notes.ERASE)
    picture = existing_picture(g, at, m, THE_DRAWING, "a cat and a tree on grass", seed=11)
    saliency = look(g, at, m, picture, "girl, sky, hill, clouds", "cat, tree")
    mask = g.add("ConceptSaliencyToMask", saliency=saliency, image=picture.image, concept=at.pick("girl", "cat"),
                 grow=at.pick(24, 6), feather=at.pick(4, 2), fill_holes=True, tall=720)
    g.place("4  Mask of what shall go", [mask])
    positive, negative, nodes = prompts(g, at, m.clip, "Prompt (may stay empty)", "")
    encoded = g.add("VAEEncode", pixels=picture.image, vae=m.vae)
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    erased = g.add("ConceptErase", model=m.model)
    sampled = g.add("KSampler", model=erased["model"], positive=positive, negative=negative, latent_image=noise["LATENT"],
                    **{**at.sampling, "cfg": 1.0})
    repainted(g, picture, [*nodes, encoded, erased], [noise, sampled], m.vae, mask["mask"], "erased", "5  Erase")
    return g


def sam3(at: Setting) -> Graph:
    g = Graph(at["sam3_prompts"])
    m = begin(g, at, notes.SAM3, [SAM3])
    picture = existing_picture(g, at, m, THE_DRAWING, "a house and an apple on snow", seed=10)
    saliency = look(g, at, m, picture, "girl, sky, hill, clouds", "apple, house")
    points = g.add("ConceptSaliencyToSAM3", saliency=saliency, concept=at.pick("girl", "apple"))
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
    first, second = "cat", at.pick("dog", "balloon")
    sampling = {**at.sampling, "seed": at.pick(7, 10)}  # the demo's seed is chosen
    words = g.add("ConceptAttentionApply", model=m.model, clip=m.clip, concepts=f"{first}, {second}", **at.contrast)
    whole, negative, nodes = prompts(g, at, m.clip, "Prompt of the first picture, and of the whole",
                                     at.pick("a cat and a dog on a sofa", "a cat and a balloon on snow"), guidance=None)
    one = g.add("CLIPTextEncode", "Prompt for the first thing", clip=m.clip, text=at.pick("a white persian cat", "an apple on snow"))
    other = g.add("CLIPTextEncode", "Prompt for the second thing", clip=m.clip, text=at.pick("a black labrador", "a tree on snow"))
    g.place("2  Words and prompts", [words, *nodes, one, other])
    latent = g.add("EmptySD3LatentImage", **at.size)
    sampled = g.add("KSampler", model=words["model"], positive=whole, negative=negative, latent_image=latent["LATENT"],
                    **sampling)
    decoded = g.add("VAEDecode", samples=sampled["LATENT"], vae=m.vae)
    g.place("3  First picture", [latent, sampled, decoded])
    maps = g.add("ConceptSaliency", recordings=words["recordings"], samples=sampled["LATENT"], image=decoded["IMAGE"], tall=760)
    masks = [g.add("ConceptSaliencyToMask", title, saliency=maps["saliency"], image=decoded["IMAGE"], concept=name, grow=at.pick(8, 3),
                   fill_holes=True, tall=720) for title, name in (("First thing", first), ("Second thing", second))]
    g.place("4  Where each thing is", [maps], masks)
    places = [g.add("ConditioningSetMask", conditioning=prompt["CONDITIONING"], mask=mask["mask"], **at.pick({}, STRONGLY))
              for prompt, mask in zip((one, other), masks)]
    both = g.add("ConditioningCombine", conditioning_1=places[0]["CONDITIONING"], conditioning_2=places[1]["CONDITIONING"])
    all_three = g.add("ConditioningCombine", conditioning_1=both["CONDITIONING"], conditioning_2=whole)
    again = g.add("KSampler", model=m.model, positive=all_three["CONDITIONING"], negative=negative, latent_image=latent["LATENT"],
                  **sampling)
    redone = g.add("VAEDecode", samples=again["LATENT"], vae=m.vae)
    g.place("5  Each place its prompt", [*places, both, all_three, again, redone])
    before = g.add("PreviewImage", "Before", images=decoded["IMAGE"], tall=420)
    after = g.add("SaveImage", "From three prompts", images=redone["IMAGE"], filename_prefix="concept_saliency/two_prompts", tall=420)
    g.place("6  Before and after", [before, after])
    return g


def live_regions(at: Setting) -> Graph:
    g = Graph(at["live_regions"])
    m = begin(g, at, notes.REGIONS)
    words = at.pick(("knight", "wizard"), ("cat", "balloon"))
    whole, negative, nodes = prompts(g, at, m.clip, "Prompt: who stands where", at.pick(
        "a knight on the left and a wizard on the right, in a forest", "a cat and a balloon on snow"), guidance=None)
    texts = at.pick(("an astronaut in a white spacesuit, in a forest", "a fisherman in a yellow raincoat, in a forest"),
                    ("a robot on snow", "a balloon on snow"))
    own = [g.add("CLIPTextEncode", f"Prompt in place of the {word}", clip=m.clip, text=text) for word, text in zip(words, texts)]
    g.place("2  Prompts", nodes, own)
    early, anew = at.pick(({}, {}), (EARLY, ANEW))
    first = region(g, at, "First region", m.model, m, own[0], *words, **early)
    second = region(g, at, "Second region", first["model"], m, own[1], *reversed(words), **early)
    g.place("3  Each word's place its prompt", [first, second])
    drawn_with_regions(g, at, m, [first, second], whole, negative, "live_regions", seed=at.pick(7, 6), **anew)  # the demo's seed is chosen
    return g


def lora(at: Setting) -> Graph:
    g = Graph(at["lora_in_a_region"])
    m = begin(g, at, notes.LORA)
    text = at.pick("a dragon on the roof of a castle", "a dragon and a tree on snow")
    whole, negative, nodes = prompts(g, at, m.clip, "Prompt", text, guidance=None)
    inside = g.add("CLIPTextEncode", "Prompt in the LoRA's words", clip=m.clip, text=text)
    hook = g.add("CreateHookLora", at.pick("Create Hook LoRA: choose yours", None), lora_name=at.pick("your_lora.safetensors", LORA.name))
    hooked = g.add("ConditioningSetProperties", cond_NEW=inside["CONDITIONING"], hooks=hook["HOOKS"])
    g.place("2  Prompts, and a LoRA on one of them", nodes, [inside, hook, hooked])
    node = region(g, at, "Region of the LoRA", m.model, m, hooked, "dragon", at.pick("castle, sky", "tree"))
    g.place("3  Where the dragon takes shape", [node])
    drawn_with_regions(g, at, m, [node], whole, negative, "lora_in_a_region", seed=at.pick(7, 11))  # the demo's seed is chosen
    return g


def workflows() -> dict[str, dict]:
    """Every workflow's file name and content."""
    graphs = [make(Setting(demo, FLUX_FILL if make is fill else FLUX_DEV))
              for make in (see, repaint, erase, background, fill, sam3, two, live_regions, lora) for demo in (False, True)]
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
