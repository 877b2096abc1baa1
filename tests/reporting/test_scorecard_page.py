from html.parser import HTMLParser

from lurm.reporting.scorecard_page import scorecard_page


def row(title, family, auc, lead=None, width=128):
    return {
        "title": title,
        "family": family,
        "auc": auc,
        "auc_se": 0.003,
        "acc": 0.6,
        "width": width,
        "seconds": 12.4,
        "folds": [auc - 0.01, auc + 0.01],
        "seconds_scoring": 1.0,
        "budget": {"steps": 1000},
        "n_tasks": {"wide": 1},
        "heads": {"wide": {"logistic": auc, "best": auc}},
        "leads": {"wide": lead},
        "tasks": {"coffee": {"auc": auc, "acc": 0.6}},
    }


NOTHING = {"mean": 0.0, "low": 0.0, "high": 0.0}
CARD = {
    "complete_journey": {
        "n_users": {"coffee": 1984},
        "kinds": {"wide": ["coffee"]},
        "methods": {
            "tf_idf": row("TF-IDF", "rival", 0.735, {"mean": 0.012, "low": 0.004, "high": 0.02}),
            "lurm": row("LURM", "LURM", 0.747),
            "boost": row(
                "<boosted>", "simple", 0.74, {"mean": 0.007, "low": -0.004, "high": 0.02}, None
            ),
            "history_2": row("history of 2 months", "ablation", 0.7, NOTHING),
            "soft": row("soft", "ablation", 0.746, {"mean": 0.001, "low": -0.01, "high": 0.01}),
        },
        "claims": [
            {
                "claim": "a",
                "what": "LURM beats the best rival",
                "verdict": "cannot be told",
                "figure": "+0.7 (−0.4 to +2.0)",
            }
        ],
        "anchors": {
            "before": {"separation": 0.12, "map": [[[0, 1], [2, 0]], [[1, 1], [0, 2]]]},
            "after": {"separation": 0.97, "map": [[[0, 1], [0, 2]], [[5, 6], [6, 5]]]},
        },
    }
}


class Words(HTMLParser):
    def __init__(self):
        super().__init__()
        self.words = []

    def handle_data(self, data):
        self.words += data.split()


def test_the_page_says_what_was_scored_in_falling_order_and_escapes_names():
    page = scorecard_page(CARD, "reported", 0.95)
    parser = Words()
    parser.feed(page)
    text = " ".join(parser.words)
    assert "Before training: 12 % of neighbors of the same anchor" in text
    assert "After training: 97 % of neighbors of the same anchor" in text
    assert page.count("<circle") - page.count('class="ink"') >= 8
    assert text.index("LURM 74.7 74.7") < text.index("<boosted> 74.0") < text.index("TF-IDF 73.5")
    assert "+1.2 (+0.4 to +2.0)" in text
    assert "by task" in text
    assert "1,984 users" in text
    assert "<boosted>" not in page
    assert 'class="badge warn">cannot be told' in page
    assert "One thing changed" in text
    assert "Scores on the reported users" in text
    assert "steps 1000" in text
    assert "Months of history, wide tasks" in text
    assert "<title>2: 70.0</title>" in page
    assert "<title>all: 74.7</title>" in page


def test_the_page_needs_nothing_from_outside():
    page = scorecard_page(CARD, "reported", 0.95)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
