"""Heads: small models per task on frozen user vectors (paper 3.2), their training and their scores.

    out_of_fold   scores of several kinds of heads for many tasks, all trained side by side
    fit, predict  one head, chosen and calibrated by cross-validation among its users
    save_head, load_head

Kinds are in `settings.KINDS`: logistic regression, the paper's MLP, boosted trees, their blend, and auto,
which chooses among these.
"""

from lurm.heads.choice import (
    BlendedHead,
    Head,
    carry_heads,
    fit,
    fold_heads,
    out_of_fold,
    parts_of,
    predict,
)
from lurm.heads.files import load_head, save_head
from lurm.heads.folds import deal, splits, stratified_folds
from lurm.heads.mlp import MlpHead, normalizer
from lurm.heads.paper import Training, cross_validate, train_head
from lurm.heads.predictions import predictions
from lurm.heads.scores import Scores, roc_curves, roc_table
from lurm.heads.settings import BASE_KINDS, KINDS, HeadSettings
from lurm.vectors import vector_matrix, vector_space

__all__ = [
    "BASE_KINDS",
    "KINDS",
    "BlendedHead",
    "Head",
    "HeadSettings",
    "MlpHead",
    "Scores",
    "Training",
    "carry_heads",
    "cross_validate",
    "deal",
    "fit",
    "fold_heads",
    "load_head",
    "normalizer",
    "out_of_fold",
    "parts_of",
    "predict",
    "predictions",
    "roc_curves",
    "roc_table",
    "save_head",
    "splits",
    "stratified_folds",
    "train_head",
    "vector_matrix",
    "vector_space",
]
