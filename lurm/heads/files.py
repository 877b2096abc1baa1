"""Heads as files: safetensors, without pickle; what a head is made of is in the header."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lurm.heads.boosting import BoostedHead
from lurm.heads.choice import VECTOR, BaseHead, BlendedHead, Head
from lurm.heads.logistic import LogisticHead
from lurm.heads.mlp import MlpHead, mlp_of
from lurm.storage import read_tensors, write_tensors

_KEY = "head"  # in the header's settings


def save_head(head: Head, path: Path | str, settings: Mapping[str, Any]) -> None:
    """Write the head as safetensors, ``settings`` (task, classes, model version) in its header."""
    tensors: dict[str, Tensor] = {}
    if isinstance(head, BlendedHead):
        parts = []
        for n, (block, part) in enumerate(head.parts):
            tensors |= {f"{n}/{name}": tensor for name, tensor in _tensors(part).items()}
            parts.append({"kind": part.kind, "block": block})
        tensors["parameters"] = torch.from_numpy(head.parameters)
        about: dict[str, Any] = {"kind": "blend", "parts": parts}
    else:
        tensors, about = _tensors(head), {"kind": head.kind}
    write_tensors(tensors, path, {**settings, _KEY: about})


def load_head(path: Path | str) -> tuple[Head, dict[str, Any]]:
    """The head that :func:`save_head` wrote, and its settings.

    Files from before there were several kinds hold an MLP.

    Raises:
        ValueError: the file is of a kind that this version does not know.
    """
    tensors, settings = read_tensors(path)
    about = settings.pop(_KEY, {"kind": "mlp"})
    if about["kind"] != "blend":
        return _head(about["kind"], tensors, path), settings
    parts = []
    for n, part in enumerate(about["parts"]):
        start = f"{n}/"
        of_part = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
        parts.append((part.get("block", VECTOR), _head(part["kind"], of_part, path)))
    return BlendedHead(tuple(parts), tensors["parameters"].numpy()), settings


def _tensors(head: BaseHead) -> dict[str, Tensor]:
    if isinstance(head, LogisticHead):
        return {"weight": head.weight, "bias": head.bias}
    if isinstance(head, BoostedHead):
        text = np.frombuffer(head.text.encode(), dtype=np.uint8).copy()
        return {"trees": torch.from_numpy(text), "width": torch.tensor(head.width)}
    return {"mean": head.mean, "rms": head.rms, **head.mlp.state_dict()}


def _head(kind: str, tensors: dict[str, Tensor], path: Path | str) -> BaseHead:
    if kind == "logistic":
        return LogisticHead(tensors["weight"], tensors["bias"])
    if kind == "boosting":
        return BoostedHead(tensors["trees"].numpy().tobytes().decode(), int(tensors["width"]))
    if kind != "mlp":
        raise ValueError(
            f"{path}: expected a head of kind logistic, mlp, boosting or blend, found {kind!r}; "
            "read it with the version that wrote it"
        )
    mean, rms = tensors.pop("mean"), tensors.pop("rms")
    hidden, width = tensors["0.weight"].shape
    mlp = mlp_of(width, hidden, len(tensors["2.weight"]))
    mlp.load_state_dict(tensors)
    return MlpHead(mean, rms, mlp.requires_grad_(False))
