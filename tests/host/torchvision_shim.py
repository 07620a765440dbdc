"""Lets a torchvision without compiled operators be imported, as it must be beside a CPU-only torch from PyPI."""

import sys

import torch


def make_importable() -> None:
    """Define the operators that torchvision registers fakes for, if it cannot be imported without them."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


if __name__ == "__main__":  # python torchvision_shim.py main.py ARGUMENTS...: run ComfyUI with it
    import runpy

    make_importable()
    sys.argv = sys.argv[1:]
    sys.path[0] = ""
    runpy.run_path(sys.argv[0], run_name="__main__")
