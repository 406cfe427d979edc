"""What happens once an optimizer step: layers settle what the step's backwards have counted."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from workers.layers.declared import Declared, declared

_watched: WeakSet[nn.Module] = WeakSet()
_handles: list[RemovableHandle] = []  # of the one hook that serves all models


def after_step(model: nn.Module) -> None:
    """Do what the layers declare for the end of an optimizer step.

    model: whose parameters the step has moved; without a counted backward nothing happens.
    """
    by_class: dict[type[Declared], list[Declared]] = defaultdict(list)
    for _, layer in declared(model):
        by_class[type(layer)].append(layer)
    for cls, layers in by_class.items():
        if any(layer.counted for layer in layers):
            with torch.no_grad():
                cls.settle(layers)
            for layer in layers:
                layer.counted.clear()


def watch_steps(model: nn.Module) -> None:
    """From now on, settle after the step of any torch optimizer that has parameters of the model.

    So an export needs no trainer that knows of it. A model's own count of changes would not do:
    torch's fused optimizers change parameters without a trace.

    model: held weakly; to watch it again changes nothing.
    """
    if not _handles:
        _handles.append(register_optimizer_step_post_hook(_stepped))
    _watched.add(model)


def _stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for model in list(_watched):
        if any(id(p) in moved for p in model.parameters()):
            after_step(model)
