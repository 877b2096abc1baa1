"""The anchors' outputs before and after training, as Fig. 5 of the paper, for the scorecard.

Letters: n bags, M anchors.
"""

from pathlib import Path
from typing import Any

import torch

from benchmarks.data_sets import DataSet
from lurm.anchor_map import anchor_map, anchor_outputs, separation
from lurm.pretraining import rows_from_centres
from lurm.smen import Smen, load_smen
from lurm.storage import file_hash, read_array, read_json, write_json
from lurm.timelines import ShardedTimelines

N_BAGS, SEED = 100, 0


def anchors_of(data_set: DataSet, path: Path) -> dict[str, Any]:
    """``before`` and ``after``: ``separation``, and ``map`` with the n places of each of M anchors.

    Kept in the file at ``path`` for as long as the encoder stays.
    """
    model = data_set.root / "models/smen.safetensors"
    known = read_json(path) if path.exists() else {"key": None}
    key = file_hash(model)
    if known["key"] != key:
        timelines = ShardedTimelines(data_set.root / "data/timelines")
        after, _ = load_smen(model)
        before = _untrained(data_set, after)
        known = {"key": key}
        for when, smen in (("before", before), ("after", after)):
            outputs = anchor_outputs(smen, timelines, N_BAGS, SEED)
            places = anchor_map(outputs, SEED).transpose(1, 0, 2).round(1)
            known[when] = {"separation": separation(outputs), "map": places.tolist()}
        write_json(known, path)
    return {when: known[when] for when in ("before", "after")}


def _untrained(data_set: DataSet, trained: Smen) -> Smen:
    """The encoder as its training began."""
    chosen = data_set.params.pretrain_smen
    torch.manual_seed(chosen.seed)
    smen = Smen(trained.settings)
    if chosen.interest_start == "centres":
        centres = read_array(data_set.root / "models/interest_centres.npy")
        rows = torch.from_numpy(rows_from_centres(centres, chosen.width, chosen.seed))
        with torch.no_grad():
            smen.multi_anchor.interests.copy_(rows)
    return smen
