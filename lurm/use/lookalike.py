"""Who is like the seeds: the other users ranked by similarity and by a small classifier (look-alike).

Letters: U users, d numbers of a vector, S seeds.

Both measures look at vectors from which the mean of all users is taken away: what everybody shares says
nothing about the seeds. On the example, with some buyers of a category as seeds, its other buyers are found
with an AUC of (mean over six categories)

    seeds                              3     50    200
    cosine of the vectors as they are  0.67  0.69  0.70
    cosine from the mean               0.65  0.76  0.76
    classifier                         0.68  0.77  0.79
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FOLDS = 5  # of the others, so that no user is scored by a classifier that was told he is none
INVERSE_RIDGE = 0.03  # scikit-learn's C; anything from 0.01 to 0.1 does as well on the example
MOST_OTHERS = 100_000  # users that a classifier is shown beside the seeds


def from_the_mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors (U, d) from their mean, as unit rows; a user at the mean has a row of zeros."""
    centred = x - x.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(lengths > 0, lengths, 1)


def similarity(x: NDArray[np.float32], seeds: NDArray[np.int64]) -> NDArray[np.float32]:
    """Cosine of every user to the mean of the seeds, (U,), seen from the mean of all users.

    Every seed counts alike, whatever the length of its vector. x: (U, d); seeds: (S,) rows.
    """
    unit = from_the_mean(x)
    centre = unit[seeds].mean(axis=0)
    length = np.linalg.norm(centre)
    return unit @ (centre / length if length > 0 else centre)


def classifier_scores(
    x: NDArray[np.float32], seeds: NDArray[np.int64], seed: int = 0
) -> NDArray[np.float64]:
    """Chance that a user is one like the seeds rather than any other, (U,); 0.5 is as likely as not.

    Logistic regression of the seeds against the others, who count in total as much as the seeds do: so
    the ridge holds it back where seeds are few, and the chance does not follow their number. The others
    are dealt into folds, and each is scored by a classifier that has not seen him: some among them are
    just like the seeds, and nobody said so. Seeds are scored by the mean of all, which have seen them.
    x: (U, d); seeds: (S,) rows.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and the index needs none

    rng = np.random.default_rng(seed)
    is_seed = np.zeros(len(x), dtype=bool)
    is_seed[seeds] = True
    others = rng.permutation(np.flatnonzero(~is_seed))
    centred = x - x.mean(axis=0)
    z = centred / (np.sqrt(np.mean(centred**2)) or 1.0)
    scores = np.zeros(len(x))
    folds = min(FOLDS, len(others))
    for fold in range(folds):
        mine = np.arange(len(others)) % folds == fold
        shown = others[~mine][:MOST_OTHERS] if folds > 1 else others
        rows = np.concatenate([np.flatnonzero(is_seed), shown])
        weights = np.where(is_seed[rows], 1.0, is_seed.sum() / len(shown))
        model = LogisticRegression(C=INVERSE_RIDGE, max_iter=1000)
        model.fit(z[rows], is_seed[rows], sample_weight=weights)
        scores[others[mine]] = model.predict_proba(z[others[mine]])[:, 1]
        scores[is_seed] += model.predict_proba(z[is_seed])[:, 1] / folds
    return scores


def audience(
    vectors: pa.Table, x: NDArray[np.float32], seeds: NDArray[np.int64], by: str, top: int | None
) -> pa.Table:
    """The other users, best first: rank, user, both measures, and how far the vector can be trusted.

    vectors: `tables.user_vectors_schema`; x: (U, d), its vectors; seeds: (S,) rows; ``by`` names the column
    that ranks, ties by the row; ``top`` users, or all.

    Raises:
        ValueError: there are no seeds, or nobody but them.
    """
    seeds = np.unique(seeds)
    if not 0 < len(seeds) < len(x):
        raise ValueError(
            f"lookalike: expected some of the {len(x):,} users as seeds and others to rank, "
            f"got {len(seeds):,} seeds"
        )
    measures: dict[str, NDArray] = {
        "similarity": similarity(x, seeds),
        "classifier": classifier_scores(x, seeds),
    }
    order = np.argsort(-measures[by], kind="stable")
    chosen = order[~np.isin(order, seeds)][:top]
    people = vectors.select(["user_id", "n_behaviors", "confidence"]).take(pa.array(chosen))
    return pa.table(
        {
            "rank": np.arange(1, len(chosen) + 1),
            "user_id": people["user_id"],
            **{name: values[chosen].astype(np.float32) for name, values in measures.items()},
            "n_behaviors": people["n_behaviors"],
            "confidence": people["confidence"],
        }
    )
