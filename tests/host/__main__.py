"""Run tests/host with the interpreter of every ComfyUI found: python3 tests/host [--matrix] [pytest arguments]

Hosts are the folders in COMFYUI_PATH (separated as PATH is), by default ~/ComfyUI*. A host's
interpreter is its .venv, else this one. They run side by side, one a core, and each prints when it has ended; the last lines
say which hosts ran and which did not.
--matrix: also the tests that take minutes, and every combination with other nodes, models, samplers
and server options as one table.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from glob import glob
from pathlib import Path

HERE = Path(__file__).resolve().parent
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # models this small gain nothing by a second one, and waiting for it costs ten times on busy cores
sys.path.insert(0, str(HERE))
from table import outcomes, table  # noqa: E402


def hosts() -> list[Path]:
    listed = os.environ.get("COMFYUI_PATH")
    paths = listed.split(os.pathsep) if listed else sorted(glob(os.path.expanduser("~/ComfyUI*")))
    return [Path(p) for p in paths if p]


def interpreter(host: Path) -> str:
    for candidate in (host / ".venv/bin/python", host / ".venv/Scripts/python.exe"):
        if candidate.exists():
            return str(candidate)
    return sys.executable


def run(host: Path, report: Path, arguments: list[str]) -> tuple[int, str]:
    """One host's tests: the exit code and what they printed."""
    command = [interpreter(host), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(HERE),
               "-c", str(HERE / "pytest.ini"), "--junit-xml", str(report), "-o", "junit_family=xunit1", *arguments]
    done = subprocess.run(command, env={**ONE_THREAD, **os.environ, "COMFYUI_HOST": str(host)}, cwd=host, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout


def main(arguments: list[str]) -> int:
    matrix = "--matrix" in arguments
    slow = [*sorted(HERE.glob("test_matrix_*.py")), HERE / "test_capture.py", HERE / "test_frontend.py"]
    tests = list(map(str, slow if matrix else [HERE]))
    arguments = [a for a in arguments if a != "--matrix"] + (["-m", "long or not long"] if matrix else [])
    lines, cells, failed = [], {}, False
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {}
        for host in hosts():
            if not (host / "main.py").exists():
                lines.append(f"HOST DID NOT RUN: {host.name} (no main.py there)")
                failed = failed or "COMFYUI_PATH" in os.environ
                continue
            report = Path(folder) / f"{host.name}.xml"
            running[pool.submit(run, host, report, [*tests, *arguments])] = host, report
        for ended in as_completed(running):
            (code, printed), (host, report) = ended.result(), running[ended]
            print(f"\n{host.name}\n{printed}", flush=True)
            lines.append(f"HOST {'PASSED' if code == 0 else f'FAILED (exit code {code})'}: {host.name}")
            failed = failed or code != 0
            if report.exists():
                cells[host.name] = outcomes(report)
    if matrix and cells:
        print("\n" + table(cells))
    if not lines:
        lines.append("NO HOST RAN: no ComfyUI was found. Name one in COMFYUI_PATH, or clone it to ~/ComfyUI.")
    print("\n" + "\n".join(lines), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
