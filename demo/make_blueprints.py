"""The subgraphs in subgraphs/: what ComfyUI 0.29 and newer list among their blueprints. Written by make_workflows.py."""

from __future__ import annotations

from .workflow_graph import Graph

MASK = "A mask of whatever a word names in a picture, by ConceptAttention. Connect a Flux.1 model, its text encoders and VAE."
ERASE = "Finds what a word names in a picture and removes it: its surroundings close over it. Every pixel outside the mask stays as it was."
REPAINT = "Finds what a word names in a picture and paints it anew from a prompt. Every pixel outside the mask stays as it was."


def found(g: Graph, **shape):
    """Concept Attention (Image), Concept Saliency and Saliency to Mask in a row, and what the subgraph shows of them."""
    seen = g.add("ConceptAttentionImage", samples=3)
    maps = g.add("ConceptSaliency", recordings=seen["recordings"])
    mask = g.add("ConceptSaliencyToMask", saliency=maps["saliency"], fill_holes=True, **shape)
    g.place(None, [seen], [maps], [mask])
    shown = {"model": [(seen, "model")], "clip": [(seen, "clip")], "vae": [(seen, "vae")],
             "image": [(seen, "image"), (maps, "image"), (mask, "image")],
             "concepts": [(seen, "concepts")], "contrast": [(seen, "contrast")], "mask of": [(mask, "concept")],
             "grow": [(mask, "grow")], "feather": [(mask, "feather")]}
    return maps, mask, shown


def mask_by_words() -> dict:
    g = Graph("Mask by words")
    maps, mask, shown = found(g)
    shown |= {"invert": [(mask, "invert")]}
    return g.to_blueprint(MASK, shown, {"mask": mask["mask"], "presence": mask["presence"], "heatmaps": maps["heatmaps"]})


def repaint_by_words(erase: bool = False) -> dict:
    g = Graph("Erase by words" if erase else "Repaint by words")
    _, mask, shown = found(g, **({"grow": 24, "feather": 4} if erase else {"grow": 12, "feather": 8}))
    prompt = g.add("CLIPTextEncode", "Prompt (may stay empty)" if erase else "Prompt")
    empty = g.add("CLIPTextEncode", "Negative prompt (empty)")
    encoded = g.add("VAEEncode")
    guided = g.add("FluxGuidance", conditioning=prompt["CONDITIONING"])
    noise = g.add("SetLatentNoiseMask", samples=encoded["LATENT"], mask=mask["mask"])
    erased = [g.add("ConceptErase")] if erase else []
    sampled = g.add("KSampler", positive=guided["CONDITIONING"], negative=empty["CONDITIONING"], latent_image=noise["LATENT"],
                    **({"model": erased[0]["model"]} if erase else {"denoise": 0.95}))
    decoded = g.add("VAEDecode", samples=sampled["LATENT"])
    whole = g.add("ImageCompositeMasked", source=decoded["IMAGE"], mask=mask["mask"])
    g.place(None, [prompt, empty, encoded], [guided, noise, *erased], [sampled], [decoded], [whole])
    for name, more in {"model": (erased[0] if erase else sampled, "model"), "vae": (encoded, "vae"), "image": (encoded, "pixels")}.items():
        shown[name].append(more)
    shown["clip"] += [(prompt, "clip"), (empty, "clip")]
    shown["vae"].append((decoded, "vae"))
    shown["image"].append((whole, "destination"))
    shown |= {"prompt": [(prompt, "text")], "seed": [(sampled, "seed")], "steps": [(sampled, "steps")], "cfg": [(sampled, "cfg")]}
    shown |= {} if erase else {"denoise": [(sampled, "denoise")]}
    return g.to_blueprint(ERASE if erase else REPAINT, shown, {"image": whole["IMAGE"], "mask": mask["mask"]})


def blueprints() -> dict[str, dict]:
    """Every blueprint's file name and content."""
    return {"Mask by words.json": mask_by_words(), "Repaint by words.json": repaint_by_words(),
            "Erase by words.json": repaint_by_words(erase=True)}
