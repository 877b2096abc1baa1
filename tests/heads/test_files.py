from pathlib import Path

import numpy as np
import pytest

from lurm.heads import KINDS, HeadSettings, fit, load_head, predict, save_head, train_head
from lurm.storage import write_tensors

QUICK = HeadSettings(hidden=8, max_epochs=3, trees=20, penalties=(0.1,))


def planted(n_classes, n_users=150):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n_users) % n_classes)
    x = rng.standard_normal((n_users, 6)).astype(np.float32)
    x[np.arange(n_users), y] += 1
    return x, y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_load_head_gives_back_what_save_head_wrote(kind, calibrate, n_classes, tmp_path):
    x, y = planted(n_classes)
    settings = HeadSettings(**{**vars(QUICK), "calibrate": calibrate})
    heads = [fit(x, y, n_classes, settings, kind=kind, folds=3) for _ in range(2)]
    for name, head in zip("ab", heads, strict=True):
        save_head(head, tmp_path / name, {"task": "coffee"})
    assert Path(tmp_path / "a").read_bytes() == Path(tmp_path / "b").read_bytes()
    loaded, about = load_head(tmp_path / "a")
    assert about == {"task": "coffee"}
    assert np.array_equal(predict(loaded, x), predict(heads[0], x))


def test_load_head_reads_heads_from_before_there_were_kinds(tmp_path):
    x, y = planted(2)
    head = train_head(x, y, 2, max_epochs=2)
    tensors = {"mean": head.mean, "rms": head.rms, **head.mlp.state_dict()}
    write_tensors(tensors, tmp_path / "old.safetensors", {"task": "coffee"})
    loaded, about = load_head(tmp_path / "old.safetensors")
    assert about == {"task": "coffee"}
    assert np.array_equal(predict(loaded, x), predict(head, x))


def test_load_head_names_a_kind_that_it_does_not_know(tmp_path):
    write_tensors({}, tmp_path / "new.safetensors", {"head": {"kind": "forest"}})
    with pytest.raises(ValueError, match=r"new\.safetensors: expected a head of kind .*'forest'"):
        load_head(tmp_path / "new.safetensors")
