"""Run tests/host with the interpreter of every ComfyUI found: python tests/host [pytest arguments]

Hosts are the folders in COMFYUI_PATH (separated as PATH is), by default ~/ComfyUI*. A host's
interpreter is its .venv, else this one. Prints in its last lines which hosts ran and which did not.
"""

import os
import subprocess
import sys
from glob import glob
from pathlib import Path

HERE = Path(__file__).resolve().parent


def hosts() -> list[Path]:
    listed = os.environ.get("COMFYUI_PATH")
    paths = listed.split(os.pathsep) if listed else sorted(glob(os.path.expanduser("~/ComfyUI*")))
    return [Path(p) for p in paths if p]


def interpreter(host: Path) -> str:
    for candidate in (host / ".venv/bin/python", host / ".venv/Scripts/python.exe"):
        if candidate.exists():
            return str(candidate)
    return sys.executable


def main() -> int:
    outcomes, failed = [], False
    for host in hosts():
        if not (host / "main.py").exists():
            outcomes.append(f"HOST DID NOT RUN: {host.name} (no main.py there)")
            failed = failed or "COMFYUI_PATH" in os.environ
            continue
        command = [interpreter(host), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--import-mode=importlib",
                   "--rootdir", str(HERE), "-c", str(HERE / "pytest.ini"), str(HERE), *sys.argv[1:]]
        code = subprocess.run(command, env={**os.environ, "COMFYUI_HOST": str(host)}, cwd=host).returncode
        outcomes.append(f"HOST {'PASSED' if code == 0 else f'FAILED (exit code {code})'}: {host.name}")
        failed = failed or code != 0
    if not outcomes:
        outcomes.append("NO HOST RAN: no ComfyUI was found. Name one in COMFYUI_PATH, or clone it to ~/ComfyUI.")
    print("\n" + "\n".join(outcomes), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
