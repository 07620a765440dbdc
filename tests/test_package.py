"""What is published: which files, how large, what the registry is told, and nothing its scanners freeze a pack for."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import shipped
from PIL import Image
from shipped import ROOT

from concept_saliency.core.families import FAMILIES

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

LARGEST = 26_700_000  # bytes, unpacked; 24 million are the demo's weights, without which the quickstart does not run
LARGEST_BESIDE_WEIGHTS = 2_700_000
FORBIDDEN_MODULES = {"subprocess", "socket", "urllib", "http", "requests", "httpx", "aiohttp", "ctypes", "pip", "pickle", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_files_are_those_that_were_agreed_on():
    agreed = set((ROOT / "tests" / "shipped.txt").read_text(encoding="utf-8").split("\n")) - {""}
    found = set(shipped.files())
    assert found == agreed, (f"new: {sorted(found - agreed)}, gone: {sorted(agreed - found)}. Either name them in .comfyignore, or: "
                             "python tests/shipped.py > tests/shipped.txt")


def test_pip_installs_every_package_of_the_repository(project):
    """What is missing here is found by tests that run in the repository, and by nobody who installs it."""
    folders = [Path(name).parent for name in shipped.files() if name.endswith("__init__.py")]
    installed = project["tool"]["setuptools"]["packages"]
    assert sorted(installed) == sorted(".".join(("concept_saliency", *folder.parts)) for folder in folders)


def test_size():
    sizes = {name: (ROOT / name).stat().st_size for name in shipped.files()}
    weights = sum(size for name, size in sizes.items() if name.startswith("demo/weights/"))
    total = sum(sizes.values())
    print(f"{len(sizes)} files, {total / 1e6:.1f} MB, {weights / 1e6:.1f} of them weights")
    assert total < LARGEST and total - weights < LARGEST_BESIDE_WEIGHTS


def test_the_zip_of_the_registrys_own_tool_holds_the_same(tmp_path):
    if not importlib.util.find_spec("comfy_cli"):
        pytest.skip("comfy-cli is not installed: pip install comfy-cli (the release step installs it)")
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    for command in ("validate", "pack"):
        done = subprocess.run([sys.executable, "-m", "comfy_cli", "--skip-prompt", "node", command], cwd=tmp_path / "clone",
                              env={**os.environ, "DO_NOT_TRACK": "1"}, capture_output=True, text=True)
        assert done.returncode == 0 and "Warning" not in done.stdout + done.stderr, done.stdout + done.stderr
    with zipfile.ZipFile(tmp_path / "clone" / "node.zip") as packed:
        assert sorted(packed.namelist()) == sorted((tmp_path / "clone/tests/shipped.txt").read_text(encoding="utf-8").split())


def test_fields(project):
    """https://docs.comfy.org/registry/specifications"""
    about, comfy = project["project"], project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", about["name"]) and "comfyui" not in about["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", about["version"])
    assert comfy["PublisherId"] and comfy["DisplayName"] and about["description"] and about["urls"]["Repository"].startswith("https://")
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert f"## {about['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()


def test_pictures(project):
    for field, shape in (("Icon", (1, 1)), ("Banner", (21, 9))):
        file = ROOT / project["tool"]["comfy"][field].partition("/main/")[2]
        width, height = Image.open(file).size
        assert width * shape[1] == height * shape[0], (file, width, height)
        assert file.suffix == ".png" and file.stat().st_size < 200_000
        if field == "Icon":
            assert width <= 400


@pytest.mark.parametrize("name", [name for name in shipped.files() if name.endswith(".py")])
def test_code_that_ships_reaches_for_nothing(name):
    """No network, no processes, no code made at run time: https://docs.comfy.org/registry/standards"""
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {(node.module or "").partition(".")[0]} if not node.level else set()
        else:
            modules = set()
        assert not modules & FORBIDDEN_MODULES, f"{name}, line {node.lineno}: {modules & FORBIDDEN_MODULES}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"{name}, line {node.lineno}: {node.func.id}"


@pytest.mark.parametrize("name", [name for name in shipped.files() if name.endswith((".js", ".css"))])
def test_what_the_browser_gets_loads_nothing_from_outside_and_takes_names_as_text(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"https?:|//[\w-]+\.\w|@import|url\(|(?:inner|outer|Adjacent)HTML|document\.write|\beval\b|\bFunction\(", text)
    assert not found, f"{name}: {found}"


def test_what_ships_needs_nothing_that_does_not(tmp_path):
    """Every module that does not need ComfyUI is imported, and the demo's weights are read, from the unpacked files alone."""
    pack = shipped.unpack(tmp_path / "concept_saliency")
    modules = [name[:-3].replace("/", ".").removesuffix(".__init__") for name in shipped.files()
               if name.endswith(".py") and "/" in name and not name.startswith("nodes/") and "__main__" not in name]
    code = ("import importlib, sys\n"
            f"for name in {modules!r}: importlib.import_module('concept_saliency.' + name)\n"
            "sys.modules['concept_saliency.demo.pipeline'].TinyFlux()\n"
            f"assert sys.modules['concept_saliency'].__file__ == {str(pack / '__init__.py')!r}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SHARED = ("z_image", "lumina2", "krea2")  # families without blocks of their own for text


@pytest.mark.parametrize("family, depth", [("flux1", 19), ("flux2", 8), ("z_image", 30), ("lumina2", 26), ("krea2", 28),
                                           ("qwen_image", 60), ("chroma", 19), ("chroma_radiance", 19), ("ovis_image", 6),
                                           ("longcat_image", 10), ("sd3", 24), ("hunyuan_image", 20), ("hunyuan_video", 20),
                                           ("hunyuan_video15", 54), ("wan", 40), ("wan22", 30)])
def test_the_readmes_table_of_models_says_what_the_code_does(family, depth):
    family, table = FAMILIES[family], (ROOT / "README.md").read_text(encoding="utf-8").split("## Models")[1].split("\n## ")[0]
    layers, first_step = family.DEFAULTS.layers(depth), family.DEFAULTS.first_step
    steps = f"steps from {first_step:.0%} on" if first_step else "all steps"
    ends = "-".join(map(str, dict.fromkeys((layers[0], layers[-1]))))
    auto = f"layers {ends} of {depth}, {steps}, temperature {family.DEFAULTS.temperature:g}"
    blocks = "layers that text and image share" if family.NAME in SHARED else "double-stream blocks"
    if getattr(family, "KEYS_ONLY", False):
        blocks = "cross-attention to the text"
    start = f"| {family.TITLE} | {blocks} | {auto} |"
    assert sum(line.startswith(start) for line in table.split("\n")) == 1, start
    assert table.count("\n| ") == 1 + len(FAMILIES)


def test_readme_and_its_links():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    assert len(re.findall(r"^python3 -m venv .* -m pytest$", text, re.MULTILINE)) == 1, "the line that .ci/run looks for"
    shipping = shipped.files()
    for file in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / file).read_text(encoding="utf-8")):
            assert "://" in link or (ROOT / link).exists(), f"{file}: {link}"
            assert "://" in link or file == "CONTRIBUTING.md" or link in shipping, f"{file} ships, but not {link}"
