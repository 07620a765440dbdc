"""What the registry's zip holds: the files git has, without those that .comfyignore names, as `comfy node pack` takes them.

    python tests/shipped.py > tests/shipped.txt      after a file was added, moved or taken away
"""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files() -> list[str]:
    """Their paths in the repository, sorted. Raises CalledProcessError where the repository is no clone."""
    return sorted(_git("-c") - _git("-ci", "-X", ".comfyignore"))


def unpack(folder: Path) -> Path:
    """The same files under another folder, as an install from the registry leaves them; returns the folder."""
    for name in files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    return folder


def _git(*which: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split("\0")) - {""}


if __name__ == "__main__":
    print(*files(), sep="\n")
