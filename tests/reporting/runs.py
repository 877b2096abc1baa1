"""A small run with made-up figures, and what a page says, for tests of pages."""

from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import yaml

from lurm.behaviors import REASONS
from lurm.drift import LEVELS, MEANINGS
from lurm.months import month_name, month_number
from lurm.reporting.report_page import Run
from lurm.reporting.scores import summary

PARAMS = Path(__file__).parents[2] / "params.yaml"


def months_from(first, n):
    return [month_name(month_number(first) + k) for k in range(n)]


def head(task, counts, auc=0.7, n_folds=4):
    folds = [{"auc": auc + 0.01 * (k - 1.5), "acc": 0.6 + 0.01 * k} for k in range(n_folds)]
    classes = [{"class": name, "n_users": n} for name, n in counts.items()]
    scores = {"auc": auc, "auc_se": 0.00645, "acc": 0.615, "n_users": sum(counts.values())}
    scores |= {"brier": 0.2345, "calibration_error": 0.0123}
    scores["head"] = [{"kind": "logistic", "inputs": "vector", "weight": 1.0}]
    return {"task": task, "classes": classes, "folds": folds, **scores}


def interests(ids=(11, 12, 13, 14), words=("milk", "bread"), texts=("MILK, 1 GA", "BREAD")):
    """Four interests: two with behaviors, one with items only, one empty."""
    id_type = pa.string() if isinstance(ids[0], str) else pa.int64()
    return pa.table(
        {
            "interest": pa.array(range(4), pa.int32()),
            "n_items": [5, 1234, 1, 0],
            "n_behaviors": [7001, 310, 0, 0],
            "n_users": [90, 80, 0, 0],
            "mean_cosine": pa.array([0.91, 0.876, 1.0, None], pa.float32()),
            "top_words": [list(words), ["tea"], [], []],
            "top_item_ids": pa.array([ids[:2], [ids[2]], [ids[3]], []], pa.list_(id_type)),
            "top_items": [list(texts), ["TEA"], [""], []],
        }
    )


def drift(month, before=(), tasks=(), **values):
    """What watch_drift says of a month with these figures; a figure's level is that of 1, 2, 3."""
    rows = [
        {
            "figure": figure,
            "value": values.get(figure, 0.01 if before else None),
            "level": LEVELS[int(values.get(figure, 0))],
        }
        for figure in MEANINGS
    ]
    told = [f"{month}: {MEANINGS[figure]} moved" for figure, v in values.items() if v >= 2]
    level = LEVELS[int(max([0, *values.values()]))]
    scores = {"users": 2000, "auc": 0.71, "auc_at_training": 0.7, "predicted": 0.25}
    heads = [{"task": t, **scores, "observed": 0.3, "calibration_error": 0.06} for t in tasks]
    return {
        "month": month,
        "against": list(before),
        "level": level,
        "figures": rows,
        "measured": {"behaviors": 123456.0},
        "anchors": [0.5, 0.5],
        "movers": [{"interest": 1, "share": 0.25, "before": 0.5}] if before else [],
        "heads": {"as_of": month, "judged": False, "tasks": heads} if heads else None,
        "told": told,
    }


def make_run(months=None, tasks=None, **changes):
    """A run over ``months``, trained on all but the last (or on the only one)."""
    months = months or months_from("2017-10", 4)
    settings = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    trained = months[:-1] or months
    previous = ["start", *months]
    settings["months"] = {
        month: {"previous": before, "items": "data/landing/items.parquet"}
        for month, before in zip(months, previous, strict=False)
    }
    settings["training"] |= {"months": trained, "through": trained[-1]}
    settings["evaluation"] |= {"as_of": trained[-1], "label_months": months[-1:]}
    heads = [head("coffee", {"no": 60, "yes": 41}), head("age", {"18-29": 7, "30+": 20, "65+": 21})]
    heads = heads if tasks is None else tasks
    settings["tasks"] = {
        "coffee": {"labels": "data/labels", "column": "product_category", "value": "COFFEE"},
        "age": {"labels": "data/landing/users.parquet", "column": "age", "value": None},
    }
    settings["tasks"] = {h["task"]: settings["tasks"][h["task"]] for h in heads}

    def counts(k):
        aside = dict.fromkeys(REASONS, 0) | {"unknown_item": 31 + k, "repeated_row": k}
        n = sum(aside.values())
        clean = 123456 + 1000 * k
        sizes = {"rows_in": clean + n, "rows_clean": clean, "rows_set_aside": n}
        return (
            sizes | aside | {"users": 2000 + k, "items": 9000 + k, "same_moment": 2, "warnings": 0}
        )

    def catalog(k):
        change = {
            "rows_in": 40 + k,
            "new": 30 + k,
            "changed": 3,
            "unchanged": 5,
            "rows_set_aside": 2,
        }
        return change | {"items": 10000 + 33 * k, "sharing_text": 8000 + k, "without_text": k}

    roc = {
        h["task"]: {
            c["class"]: [(0.0, 0.0), (0.3, 0.8), (1.0, 1.0)]
            for c in (h["classes"] if len(h["classes"]) > 2 else h["classes"][1:])
        }
        for h in heads
    }
    version = f"{trained[-1]}-r1-0123abcd"
    run = {
        "settings": settings,
        "catalog": {month: catalog(k) for k, month in enumerate(["start", *months])},
        "months": {month: counts(k) for k, month in enumerate(months)},
        "comparison": {
            "months": len(months),
            "n_warnings": 0,
            "warnings": [],
            "n_due_for_retraining": 0,
            "due_for_retraining": [],
        },
        "trailing": {
            month: {
                "month": month,
                "behaviors": 123456 + 1000 * k,
                "users": 2000 + k,
                "items": 9000 + k,
                "volume_change": -0.0617 * k if k else None,
                "mix_distance": 0.0123 * k if k else None,
            }
            for k, month in enumerate(months)
        },
        "items": {"loss": 6.0556, "n_words": 2479, "n_texts": 19366, "n_items": 10099},
        "item_losses": [7 - 0.01 * k for k in range(60)],
        "clustering": {
            "method": "hdsc",
            "n_interests": 4,
            "n_items": 1240,
            "n_sampled": 1200,
            "n_behaviors": 7311,
            "items": {"share_empty": 0.25, "imbalance": 3.96, "mean_cosine": 0.8771},
            "behaviors": {"share_empty": 0.5, "imbalance": 3.68, "mean_cosine": 0.9086},
        },
        "interests": interests(),
        "assigned": {
            month: {
                "items": 10033 + 33 * k,
                "new_items": 33 if month not in trained else 0,
                "mean_cosine_known": 0.8771,
                "mean_cosine_new": 0.8642 if month not in trained else None,
            }
            for k, month in enumerate(months)
        },
        "smen": {
            "model_version": version,
            "n_users": 2452,
            "n_bags": 20252,
            "n_weights": 2048868,
            "loss": 1.9224,
        },
        "smen_losses": [5.0, 3.0, 1.9224],
        "heads": heads,
        "skipped": [],
        "roc": roc,
        "scores": summary(heads, version),
        "drift": {month: drift(month, months[max(0, k - 3) : k]) for k, month in enumerate(months)},
    }
    return Run(**{**run, **changes})


class Page(HTMLParser):
    """What a reader finds: texts by id, cells of tables by id, and everything that is referred to."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tables, self.tags, self.references = {}, {}, [], []
        self._ids, self._table = [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.references += [
            found[name] for name in ("src", "href", "srcset", "data") if name in found
        ]
        self._ids = [*self._ids, (tag, found.get("id"))] if tag not in ("meta", "br") else self._ids
        if tag == "table" and "id" in found:
            self._table = self.tables.setdefault(found["id"], [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")

    def handle_endtag(self, tag):
        while self._ids and self._ids.pop()[0] != tag:
            pass
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        within = [name for _, name in self._ids if name]
        for name in within:
            self.texts[name] = " ".join(f"{self.texts.get(name, '')} {data}".split())
        if self._table and self._table[-1]:
            self._table[-1][-1] = " ".join(f"{self._table[-1][-1]} {data}".split())

    def row(self, table, first):
        """The cells of the row that begins so."""
        return next(row for row in self.tables[table] if row and row[0].startswith(first))
