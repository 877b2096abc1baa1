"""What heads are trained with."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

BASE_KINDS = ("logistic", "sparse", "mlp", "boosting")
KINDS = (*BASE_KINDS, "blend", "auto")


@dataclass(frozen=True)
class HeadSettings:
    """Settings of all kinds of heads; the defaults are those of params.yaml.

    A kind that is not used does not read its own.
    """

    # MLP (paper: one hidden layer of 64, Adam 1e-3, batch 128)
    hidden: int = 64
    learning_rate: float = 1e-3
    batch_size: int = 128
    max_epochs: int = 40
    patience: int = 6
    validation_share: float = 0.1
    # logistic regression: C as in scikit-learn, after the inputs are divided by their root mean square
    penalties: tuple[float, ...] = (0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    # boosting: trees at most, their learning rate, leaves of each, users of a leaf at least, share of the
    # inputs that each split may look at, trees without gain before it ends
    trees: int = 300
    tree_learning_rate: float = 0.05
    leaves: int = 6
    leaf_size: int = 20
    column_share: float = 0.3
    tree_patience: int = 20
    # choice
    candidates: tuple[str, ...] = BASE_KINDS  # what blend and auto choose from
    calibrate: bool = True
    choice_users: int = 20_000  # of many more users of a task about so many take part in that

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> "HeadSettings":
        """From the section ``evaluation`` of the settings, as a mapping."""
        named = {field.name for field in fields(cls)} & evaluation.keys()
        trees = evaluation["boosting"]
        return cls(
            **{name: evaluation[name] for name in named},
            trees=trees["trees"],
            tree_learning_rate=trees["learning_rate"],
            leaves=trees["leaves"],
            leaf_size=trees["leaf_size"],
            column_share=trees["column_share"],
            tree_patience=trees["patience"],
        )
