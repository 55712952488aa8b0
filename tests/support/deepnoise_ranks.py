"""Run by test_processes.py under torchrun: DeepNoise, and what every process holds at the end of each stage."""

import json
import os
import sys
from pathlib import Path

import torch

from rxrx_fast.recipes import deepnoise
from rxrx_fast.recipes.trainer import Trainer, processes

#: The rate at the beginning of a cycle.
PEAK = 3e-3
held = {}
fit = Trainer.fit


def fit_and_tell(self):
    model = fit(self)
    states = {"model": model, "optimizer": self.optimizer, **self.more}
    held[self.folder.name] = {name: state.state_dict() for name, state in states.items()}
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    Trainer.fit, deepnoise._PEAK = fit_and_tell, PEAK
    with processes():
        for settings in json.loads(sys.argv[1]):
            found = deepnoise.run(deepnoise.Settings(**settings))
            held["held_out"] = found["held_out"]
            torch.save(held, Path(settings["out"]) / f"rank{os.environ['RANK']}.pt")
