"""Rivals that learn each task from the behaviors themselves: training with early stopping.

Letters: n users, C classes, T behaviors.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lurm.competitors.lives import Lives, sequences
from lurm.heads import deal

Maker = Callable[[Tensor, int, int], nn.Module]  # words (I, L), words in all, classes


def classify(
    make: Maker,
    lives: Lives,
    train: np.ndarray,
    y: np.ndarray,
    test: np.ndarray,
    n_classes: int,
    *,
    longest: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    max_epochs: int = 20,
    patience: int = 3,
    validation_share: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Class probabilities (n, C) of the ``test`` users by a network trained on the ``train`` users.

    ``train`` and ``test`` are rows of users, ``y`` the classes of ``train``. Cross-entropy and Adam
    (paper: 1e-3, batch 256); a stratified share of ``train`` is held back, and the network of the epoch
    that does best on it is kept.
    """
    rng = np.random.default_rng(seed)
    order = deal(y, rng)
    held_back = np.diff(np.ceil(np.arange(len(y) + 1) * validation_share)) > 0
    kept, validation = order[~held_back], order[held_back]
    torch.manual_seed(seed)
    network = make(torch.from_numpy(lives.words), lives.n_words, n_classes).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)

    def logits(users: np.ndarray) -> Tensor:
        return network(sequences(lives, users, longest).to(device))

    def predicted(users: np.ndarray) -> Tensor:
        network.eval()
        parts = np.array_split(users, max(1, -(-len(users) // batch_size)))
        with torch.no_grad():
            return torch.cat([logits(part) for part in parts]).cpu()

    targets = torch.from_numpy(y)
    best_loss, best_epoch = float("inf"), 0
    best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for epoch in range(max_epochs):
        network.train()
        for batch in np.array_split(rng.permutation(kept), max(1, -(-len(kept) // batch_size))):
            optimizer.zero_grad()
            loss = functional.cross_entropy(logits(train[batch]), targets[batch].to(device))
            loss.backward()
            optimizer.step()
        found = functional.cross_entropy(predicted(train[validation]), targets[validation]).item()
        if found < best_loss:
            best_loss, best_epoch = found, epoch
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        elif epoch - best_epoch >= patience:
            break
    network.load_state_dict(best)
    return predicted(test).softmax(1).numpy()
