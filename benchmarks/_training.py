"""A model and its training step, shared by training.py and gpu_training.py."""

from __future__ import annotations

import torch
from _resnet import ResNet50
from torch import nn

from rxrx_fast.errors import UsageError
from rxrx_fast.recipes.backbones import backbone

__all__ = ["CHANNELS", "CLASSES", "Trainer", "build", "fitting"]

CLASSES, CHANNELS = 1139, 6
_AUTOCAST = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": None}


def build(name: str) -> tuple[nn.Module, str]:
    """Build a recipe's backbone with a linear head; returns it and its source. UsageError if its library is missing."""
    try:
        body = backbone(name, CHANNELS)
    except UsageError:
        if name != "resnet50":
            raise
        return ResNet50(CHANNELS, CLASSES), "this benchmark's own"
    source = "rxrx_fast.recipes" if name == "small" else "timm" if name.startswith("timm:") else "torchvision"
    return nn.Sequential(body, nn.Linear(body.features, CLASSES)), source


class Trainer:
    """A model and its training step: forward, loss, backward and update with SGD, channels last.

    Parameters
    ----------
    model : Module
    device : {"cpu", "cuda"}
    precision : {"float16", "bfloat16", "float32"}
        The first two under autocast, and float16 with a scaled loss.
    """

    def __init__(self, model: nn.Module, device: str, precision: str):
        self._device, self._amp = device, _AUTOCAST[precision]
        self._model = model.to(device, memory_format=torch.channels_last).train()
        # A rate of 0 costs the same and keeps the model. Continued training would reach denormal gradients,
        # which are ten times as slow on a CPU, resident or fed.
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=0.0, momentum=0.9)
        self._scaler = torch.amp.GradScaler(device, enabled=precision == "float16")
        self._loss = nn.CrossEntropyLoss()

    def step(self, images: torch.Tensor) -> None:
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.arange(len(images), device=self._device) % CLASSES
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device, self._amp, enabled=self._amp is not None):
            loss = self._loss(self._model(images), labels)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Free the memory of a step that did not fit."""
        self._optimizer.zero_grad(set_to_none=True)
        if self._device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def fitting(trainer: Trainer, batch: int, size: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Make a resident batch, halved until a step fits; takes two steps on it."""
    while True:
        try:
            images = torch.randn(batch, CHANNELS, size, size, device=device).to(dtype)
            for _ in range(2):
                trainer.step(images)
            trainer.wait()
            # The loader's batches and the decoder's memory must fit too.
            if device == "cpu" or torch.cuda.max_memory_allocated() < 0.8 * torch.cuda.mem_get_info()[1]:
                return images
        except torch.OutOfMemoryError:
            pass
        images = None
        trainer.forget()
        batch //= 2
        if batch < 2:
            raise SystemExit(f"not even two images of {size} x {size} fit on this GPU")
