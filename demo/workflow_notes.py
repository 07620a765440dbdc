"""What the workflows' notes say."""

from __future__ import annotations

LIVE = """**Tune it live:** open the menu beside *Run* and choose **Run (On Change)**. Every change in **Concept Saliency** and in \
the green nodes after it shows at once; nothing is sampled again for them."""

KNOWS = """**The demo draws** tree, person, face, dragon, cat, fish, house, car, boat, sun, moon, flower, apple, balloon, mushroom or \
robot, up to three of them, on grass, floor, sand, water, sky, snow, brick or night. It refuses other words. All of this runs on a CPU \
in seconds; the same workflow for Flux.1 stands beside this one in the template browser."""

DRAWING = """**The picture** is *example.png*, a child's drawing that lies in every ComfyUI's input folder, and the words here are about \
it. Load your own, type what is in it, and leave out what you cannot name: the description helps, but it may be empty."""

DEMO_PICTURE = """**A picture of your own?** Load it with *Load Image*, and connect that wherever *VAE Decode* of group 2 is. The demo \
knows drawings like its own only, at its own size (*megapixels* 0.07); for photographs take this workflow's variant for Flux.1."""

SEE = """## See where Flux sees each word

1. Press **Run**. The picture is the same, to the last bit, as without this pack.
2. **Concept Saliency** shows where each word is: point at the picture for the shares there, click a word for its map and presence, 0 to 1.
3. **Saliency to Mask** makes a mask of one of them. Type another word's name or number there and run again."""

REPAINT = """## Repaint what a word names

1. **Concept Attention (Image)** looks for the words in the picture.
2. **Saliency to Mask** makes a mask of one of them.
3. The mask is painted anew from *Prompt*. Every other pixel stays as it was.

*grow* and *feather* of the mask decide how much room the new thing has."""

ERASE = """## Erase what a word names

1. **Concept Attention (Image)** looks for the words in the picture.
2. **Saliency to Mask** makes a mask of the one that shall go.
3. **Erase under Mask** lets the model see, in the mask, only what is around it: the surroundings close over it, without a prompt for \
what is behind. Every other pixel stays as it was.

A rim is left? Raise *grow*. Shadows and reflections go only if the mask holds them, too."""

BACKGROUND = """## Change the background, keep the subject

The mask is everything but the subject: *invert* is on, *grow* leaves the subject a margin, *feather* softens the change, and \
**Differential Diffusion** repaints soft places a little.

Name the subject in **Saliency to Mask**, and in *Prompt* where it shall be."""

FILL = """## Inpainting with FLUX.1 Fill

Fill sees the picture around the mask, so what it paints fits in. It finds the thing to replace by itself: the same model makes \
the mask and repaints it. Guidance 30 is what Fill was made for."""

FILL_DEMO = """The demo model is no Fill model: it repaints as FLUX.1-dev would, and shows how the nodes go together."""

SAM3 = """## From words to SAM3's points and boxes

Flux says roughly where a word is, SAM3 draws the outline. **Saliency to SAM3 Prompts** turns the heatmap's peaks into points inside \
and points outside, and its islands into boxes."""

SAM3_DEMO = """SAM3 itself is a large model and not part of the demo: this workflow ends with the points and boxes it would get."""

TWO = """## Two things, a prompt for each

A first run finds where two things are. A second one paints each of them from a prompt of its own, in the same place, on top of a \
prompt for the whole picture.

Type the two things in **Concept Attention** and in the two masks, and the three prompts."""

REGIONS = """## Two characters, two prompts, one run

1. The prompt decides where things come to stand. Up to *start_percent* nothing else has a part in it.
2. There each **Concept Region** sees where its word takes shape, and from then on its own prompt draws that place.
3. **Concept Saliency** shows where each word was seen by then, over the picture as it would have been.

The new thing looks too much like the old one? Lower *start_percent*. Its place is wrong? Raise it, or name more of what is there in \
*contrast*."""

REGIONS_DEMO = """The demo model decides very early what it draws. The sampler *euler_ancestral*, which adds new noise in every step, lets \
it change its mind; its drawings are coarse all the same."""

LORA = """## A LoRA that only touches the dragon

**Cond Set Props** puts the LoRA of **Create Hook LoRA** on a prompt, and **Concept Region** gives that prompt the place where the dragon \
takes shape, in this very run. Everything else is drawn without the LoRA.

Keyframes for the hook, or a ControlNet on that prompt, act there only, too."""

LORA_YOURS = """Choose a LoRA for FLUX.1-dev of your own in **Create Hook LoRA**, and write its trigger words into the prompt beside it."""

LORA_DEMO = """The demo's LoRA darkens what it touches, coarsely. It came with this pack and stands among your own LoRAs; it is of no use \
to other models."""

DRAWN = (SEE, TWO, REGIONS, LORA)  # the picture is drawn here, and no other is needed
ADDED = {FILL: (FILL_DEMO, None), SAM3: (SAM3_DEMO, None), REGIONS: (REGIONS_DEMO, None), LORA: (LORA_DEMO, LORA_YOURS)}  # demo, Flux


def page(text: str, demo: bool, files: list[dict]) -> str:
    """A workflow's note: what it does, how to tune it, and either what the demo knows or which files go where."""
    added = ADDED.get(text, (None, None))[0 if demo else 1]
    parts = [text, *([added] if added else []), LIVE]
    if demo:
        parts += [KNOWS] + ([] if text in DRAWN else [DEMO_PICTURE])
    else:
        parts += ([] if text in DRAWN else [DRAWING]) + [links(files), tree(files)]
    return "\n\n".join(parts)


def links(files: list[dict]) -> str:
    """The files as links, below the folder each belongs in."""
    lines = ["### Model files"]
    for folder in dict.fromkeys(file["directory"] for file in files):
        lines += ["", f"**{folder}**", ""] + [f"- [{file['name']}]({file['url']})" for file in files if file["directory"] == folder]
    return "\n".join(lines)


def tree(files: list[dict]) -> str:
    """The same files as a folder tree."""
    folders = list(dict.fromkeys(file["directory"] for file in files))
    lines = ["```", "ComfyUI/", "└── models/"]
    for folder in folders:
        last = folder == folders[-1]
        lines.append(f"    {'└──' if last else '├──'} {folder}/")
        names = [file["name"] for file in files if file["directory"] == folder]
        lines += [f"    {' ' if last else '│'}   {'└──' if name == names[-1] else '├──'} {name}" for name in names]
    return "\n".join([*lines, "```"])
