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


def page(text: str, demo: bool, files: list[dict]) -> str:
    """A workflow's note: what it does, how to tune it, and either what the demo knows or which files go where."""
    parts = [text]
    if demo:
        parts += [{FILL: FILL_DEMO, SAM3: SAM3_DEMO}[text]] if text in (FILL, SAM3) else []
        parts += [LIVE, KNOWS] + ([DEMO_PICTURE] if text not in (SEE, TWO) else [])
    else:
        parts += [LIVE] + ([DRAWING] if text not in (SEE, TWO) else []) + [links(files), tree(files)]
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
