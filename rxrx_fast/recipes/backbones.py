"""Networks from images of any number of channels to an embedding."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn

from rxrx_fast.errors import DataError, UsageError
import itertools

__all__ = ["BACKBONES", "Small", "backbone", "library", "stem_from_rgb"]

#: By name; those of timm have a prefix instead, because some are called as torchvision's are.
BACKBONES = ("small", "resnet18", "resnet50", "densenet161")
_TIMM = "timm:"


class Small(nn.Module):
    """A compact residual network in plain torch, for small pictures and machines: 1.2 million parameters at width 32.

    Parameters
    ----------
    channels : int
        Of the images.
    width : int
        Feature maps of the first stage; the embedding has 8 times as many.
    norm : {"batch", "group"}
        "group" (Wu and He, ECCV 2018) does not look at the batch: a run is then the same on any number of processes.
    """

    def __init__(self, channels: int = 6, width: int = 32, norm: str = "batch"):
        super().__init__()
        make = {"batch": nn.BatchNorm2d, "group": lambda maps: nn.GroupNorm(8, maps)}[norm]
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 5, 2, 2, bias=False), make(width), nn.ReLU())
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(*(_Block(a, b, make) for a, b in itertools.pairwise(widths)))
        self.features = widths[-1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, 8 * width)."""
        return self.stages(self.stem(images)).mean((2, 3))


class _Block(nn.Module):
    """Two 3 x 3 convolutions at half the resolution, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), norm(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), norm(outputs),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def backbone(name: str, channels: int = 6, weights: str | os.PathLike | None = None, norm: str = "batch") -> nn.Module:
    """A network from (B, C, H, W) to (B, features), with an attribute ``features``.

    Parameters
    ----------
    name : str
        "small"; "resnet18", "resnet50" or "densenet161", which are torchvision's; or "timm:NAME", any of timm's
        networks, such as "timm:convnext_tiny" (those of a fixed picture size need ``--size``).
    channels : int
        Of the images.
    weights : path, optional
        A state dict of the same network for RGB images, as ``torch.save`` wrote it (for timm's, a safetensors file
        as well); the stem is spread over the channels by :func:`stem_from_rgb`'s rule, and the classifier is left out.
        Nothing is downloaded.
    norm : {"batch", "group"}
        Of "small" only.

    Raises
    ------
    UsageError
        An unknown name, a library that is not there, or arguments that don't go together.
    DataError
        The weights can't be read, or are of another network.
    """
    if name not in BACKBONES and not name.startswith(_TIMM):
        raise UsageError(f"--backbone {name!r}: must be one of {', '.join(BACKBONES)}, or {_TIMM}NAME")
    if name == "small":
        if weights is not None:
            raise UsageError("--weights are of a library's networks: --backbone small has none")
        return Small(channels, norm=norm)
    if norm != "batch":
        raise UsageError(f"--norm {norm} is for --backbone small; {name} comes with the normalisation that it has")
    make = _of_timm if name.startswith(_TIMM) else _of_torchvision
    return _Embedding(*make(name, channels, weights))


def library(module: str) -> ModuleType:
    """Import ``torchvision``, a module of it, or what imports it.

    PyPI's torchvision is linked against CUDA. Beside a CPU build of torch its compiled part can't be loaded, and then
    its import fails, for want of two operators of detection models. No classifier calls them: they are declared.
    """
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare_operators()
    return importlib.import_module(module)


def _declare_operators() -> None:
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _imported(module: str, name: str) -> ModuleType:
    try:
        return library(module)
    except (ImportError, RuntimeError, OSError) as error:
        # A build for another torch fails with a RuntimeError or OSError.
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--backbone {name} needs {module.partition('.')[0]}, which can't be imported ({reason}): pip install "
            "'rxrx-fast[backbones]' in the build that goes with torch, or take --backbone small"
        ) from None


def _of_torchvision(name: str, channels: int, weights) -> tuple[nn.Module, int]:
    network = _imported("torchvision.models", name).get_model(name, weights=None)
    if weights is not None:
        _load(network, name, weights, lambda path: torch.load(path, map_location="cpu", weights_only=True))
    stem, head = ("features.conv0", "classifier") if name.startswith("densenet") else ("conv1", "fc")
    parent, _, child = stem.rpartition(".")
    setattr(network.get_submodule(parent), child, stem_from_rgb(network.get_submodule(stem), channels, weights is None))
    features = getattr(network, head).in_features
    setattr(network, head, nn.Identity())
    return network, features


def _of_timm(name: str, channels: int, weights) -> tuple[nn.Module, int]:
    timm, own = _imported("timm", name), name.removeprefix(_TIMM)
    # A name with a scheme, such as hf-hub:, would be fetched.
    if not timm.is_model(own.partition(".")[0]):
        raise UsageError(f"--backbone {name}: timm {timm.__version__} has no such network, see timm.list_models()")
    network = timm.create_model(own, pretrained=False, num_classes=0, in_chans=channels)
    if weights is not None:

        def read(path):
            state = timm.models.load_state_dict(str(path))
            about = network.default_cfg
            for key in _names(about["first_conv"]):
                rgb = state[f"{key}.weight"]
                state[f"{key}.weight"] = _spread(rgb, channels) if rgb.shape[1] != channels else rgb
            heads = tuple(f"{key}." for key in _names(about["classifier"]))
            return {key: value for key, value in state.items() if not key.startswith(heads)}

        _load(network, name, weights, read)
    return network, getattr(network, "head_hidden_size", network.num_features)


def _names(given) -> tuple[str, ...]:
    """Timm names one layer by a string, several by a tuple."""
    return (given,) if isinstance(given, str) else tuple(given or ())


class _Embedding(nn.Module):
    """A library's network without its classifier, and how long its embedding is."""

    def __init__(self, network: nn.Module, features: int):
        super().__init__()
        self.network, self.features = network, features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)


def stem_from_rgb(stem: nn.Conv2d, channels: int, fresh: bool) -> nn.Conv2d:
    """The first convolution for another number of channels.

    Parameters
    ----------
    stem : Conv2d
        Of three channels.
    channels : int
    fresh : bool
        Draw new weights; else every channel gets the mean over red, green and blue, times 3 / channels, so that a grey
        picture gives what it gave.
    """
    if channels == stem.in_channels:
        return stem
    shape = {name: getattr(stem, name) for name in ("kernel_size", "stride", "padding")}
    wider = nn.Conv2d(channels, stem.out_channels, **shape, bias=stem.bias is not None)
    if fresh:
        return wider
    with torch.no_grad():
        wider.weight.copy_(_spread(stem.weight, channels))
        if stem.bias is not None:
            wider.bias.copy_(stem.bias)
    return wider


def _spread(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """(maps, 3, h, w) to (maps, channels, h, w)."""
    return weight.mean(1, keepdim=True).expand(-1, channels, -1, -1) * (weight.shape[1] / channels)


def _load(network: nn.Module, name: str, path, read: Callable) -> None:
    try:
        network.load_state_dict(read(path))
    except FileNotFoundError:
        raise DataError(f"--weights {path}: no such file") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"--weights {path}: not a state dict of {name}: {reason}") from None
