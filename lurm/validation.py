"""What Great Expectations is asked about a month, and how months compare.

The expectations look at aggregates that DuckDB has counted: the verdict is the same as over the
rows, and a large month never passes through pandas.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd


@dataclass(frozen=True)
class Rule:
    """What is expected of one figure, in numbers and in words."""

    figure: str
    means: str
    severity: Literal["critical", "warning"]  # critical: the month is refused
    at_least: float | None = None
    at_most: float | None = None
    is_share: bool = False
    remedy: str = ""

    def bounds(self) -> str:
        """The allowed range in words.

        >>> Rule("bad", "the share of bad rows", "critical", at_most=0.1, is_share=True).bounds()
        'at most 10%'
        """
        if self.at_most is not None and self.at_least == self.at_most:
            return f"exactly {self.number(self.at_most)}"
        words = {"at least": self.at_least, "at most": self.at_most}
        return " and ".join(
            f"{word} {self.number(bound)}" for word, bound in words.items() if bound is not None
        )

    def number(self, value: float) -> str:
        """A figure as people write it.

        >>> Rule("rows", "the number of rows", "critical").number(124565)
        '124,565'
        """
        return f"{100 * value:.3g}%" if self.is_share else f"{value:,.0f}"


@dataclass(frozen=True)
class Verdict:
    """A rule, the figures that it saw by label, and those that it did not accept."""

    rule: Rule
    observed: dict[str, float]
    failed: dict[str, float]

    @property
    def success(self) -> bool:
        """Whether no figure failed."""
        return not self.failed

    @property
    def refuses(self) -> bool:
        """Whether a month with this verdict is refused."""
        return not self.success and self.rule.severity == "critical"

    def sentence(self) -> str:
        """The failure in words: what was expected, what was found, what to do."""
        found = ", ".join(map(self.rule.number, self.failed.values()))
        return (
            f"expected {self.rule.means} to be {self.rule.bounds()}, found {found}"
            f"{'; ' if self.rule.remedy else ''}{self.rule.remedy}"
        )


def judge(figures: pd.DataFrame, rules: Sequence[Rule], suite: str) -> list[Verdict]:
    """The verdict of Great Expectations on every rule, in the rules' order.

    Args:
        figures: one row per thing judged, labelled by the index; one column per figure. A missing
            number is not judged.
        rules: what is expected.
        suite: name of the expectation suite.
    """
    # The import takes seconds, tells hundreds of lines, and without this sends usage data out.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )
    from great_expectations.expectations.metadata_types import FailureSeverity

    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
        ),
    )
    frame = figures.rename_axis("label").reset_index()
    batch = (
        context.data_sources.add_pandas("figures")
        .add_dataframe_asset("figures")
        .add_batch_definition_whole_dataframe("figures")
        .get_batch({"dataframe": frame})
    )
    expectations = [
        gx.expectations.ExpectColumnValuesToBeBetween(
            column=rule.figure,
            min_value=rule.at_least,
            max_value=rule.at_most,
            severity=FailureSeverity(rule.severity),
            description=rule.means,
        )
        for rule in rules
    ]
    result = batch.validate(
        gx.ExpectationSuite(suite, expectations=expectations),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["label"]},
    )
    # Results may come in another order than the expectations.
    by_figure = {
        found.expectation_config.kwargs["column"]: found
        for found in result.results
        if found.expectation_config is not None
    }
    return [_verdict(rule, figures[rule.figure], by_figure[rule.figure]) for rule in rules]


def _verdict(rule: Rule, values: "pd.Series[float]", found: Any) -> Verdict:
    if "unexpected_count" not in found.result:
        raise RuntimeError(f"Great Expectations could not judge {rule.figure}: {found}")
    rejected = found.result.get("unexpected_index_list") or []
    failed = {str(row["label"]): float(row[rule.figure]) for row in rejected}
    if found.success == bool(failed):
        raise RuntimeError(f"Great Expectations contradicts itself about {rule.figure}: {found}")
    observed = {str(label): float(value) for label, value in values.dropna().items()}
    return Verdict(rule, observed, failed)


# ---- one month -----------------------------------------------------------------------------------


def month_figures(counts: Mapping[str, int], n_heavy_users: int) -> dict[str, float]:
    """Figures of one delivery for :func:`month_rules`, out of the counts of ``clean_month``."""
    rows = max(counts["rows_in"], 1)
    return {
        "rows_in": counts["rows_in"],
        "rows_unaccounted": counts["rows_in"] - counts["rows_clean"] - counts["rows_set_aside"],
        "outside_month": counts["outside_month"] / rows,
        "unknown_items": counts["unknown_item"] / rows,
        "repeated_rows": counts["repeated_row"] / rows,
        "bad_rows": counts["rows_set_aside"] / rows,
        "same_moment": counts["same_moment"] / rows,
        "heavy_users": n_heavy_users,
    }


def month_rules(
    max_outside_month: float,
    max_unknown_items: float,
    max_repeated_rows: float,
    max_bad_rows: float,
    heavy_user: int,
) -> list[Rule]:
    """What is expected of a month's delivery; shares are of its rows, 0..1."""
    return [
        Rule(
            "rows_in",
            "the number of rows",
            "critical",
            at_least=1,
            remedy="the file is empty; deliver the month again",
        ),
        Rule(
            "rows_unaccounted",
            "the number of rows neither clean nor set aside",
            "critical",
            at_least=0,
            at_most=0,
            remedy="this is a fault of LURM; please report it",
        ),
        Rule(
            "outside_month",
            "the share of rows outside the month",
            "critical",
            is_share=True,
            at_most=max_outside_month,
            remedy="deliver the right month, or check calendar.timezone and "
            "validate_logs.max_outside_month",
        ),
        Rule(
            "unknown_items",
            "the share of rows whose item is not in the catalog",
            "critical",
            is_share=True,
            at_most=max_unknown_items,
            remedy="deliver the month's new items, or raise validate_logs.max_unknown_items",
        ),
        Rule(
            "repeated_rows",
            "the share of rows that repeat an earlier row",
            "critical",
            is_share=True,
            at_most=max_repeated_rows,
            remedy="the month seems to be in the file twice; deliver it once, deliver a column "
            "that tells alike rows apart, or raise validate_logs.max_repeated_rows",
        ),
        Rule(
            "bad_rows",
            "the share of rows set aside for any reason",
            "critical",
            is_share=True,
            at_most=max_bad_rows,
            remedy="repair the delivery, or raise validate_logs.max_bad_rows",
        ),
        Rule(
            "same_moment",
            "the share of rows equal to another in user, item and time alone",
            "warning",
            is_share=True,
            at_most=max_repeated_rows,
            remedy="if the file holds behaviors twice, deliver it once",
        ),
        Rule(
            "heavy_users",
            f"the number of users with more than {heavy_user:,} behaviors",
            "warning",
            at_most=0,
            remedy="they are kept; see whether they are persons",
        ),
    ]


def refusal(verdicts: Sequence[Verdict], delivery: str, month: str, likely: str | None) -> str:
    """Why ``delivery`` is refused as ``month``; ``likely`` is the month that it seems to hold."""
    holds = f" (it seems to hold {likely})" if likely not in (None, month) else ""
    reasons = ". ".join(verdict.sentence() for verdict in verdicts if verdict.refuses)
    return f"{delivery} is refused as {month}{holds}: {reasons}"


# ---- months against each other -------------------------------------------------------------------


def compare_months(profiles: Mapping[str, Mapping[str, Any]], window: int) -> pd.DataFrame:
    """Every month beside the mean of up to ``window`` months before it.

    Returns:
        A frame by month: ``behaviors``, ``users``, ``items``, and, missing in the first month,
        ``volume_change`` (relative change of behaviors) and ``mix_distance`` (total variation
        distance, 0..1, from the mix of all trailing behaviors together).

    Raises:
        ValueError: user ids are integers in one month and strings in another.
    """
    kinds = {month: profile["user_id_type"] for month, profile in profiles.items()}
    if len(set(kinds.values())) > 1:
        raise ValueError(
            f"expected user_id to be of one type in all months, found {kinds}; deliver the months "
            "again with ids of one type"
        )
    frame = pd.DataFrame.from_dict(
        {
            month: {k: p[k] for k in ("behaviors", "users", "items")}
            for month, p in profiles.items()
        },
        orient="index",
    )
    trailing = frame["behaviors"].shift().rolling(window, min_periods=1)
    frame["volume_change"] = frame["behaviors"] / trailing.mean() - 1
    shares = pd.DataFrame.from_dict({m: p["mix"] for m, p in profiles.items()}, orient="index")
    counts = shares.fillna(0).mul(frame["behaviors"], axis=0)
    past = counts.shift().rolling(window, min_periods=1).sum()
    past = past.div(trailing.sum(), axis=0)
    frame["mix_distance"] = (shares.fillna(0) - past).abs().sum(axis=1, skipna=False) / 2
    return frame


def comparison_rules(max_volume_change: float, max_mix_distance: float, window: int) -> list[Rule]:
    """What is expected of a month beside those before it; failing warns, nothing stops."""
    return [
        Rule(
            "volume_change",
            f"the change of volume against the {window} months before",
            "warning",
            is_share=True,
            at_least=-max_volume_change,
            at_most=max_volume_change,
        ),
        Rule(
            "mix_distance",
            f"the distance of the mix from that of the {window} months before",
            "warning",
            is_share=True,
            at_most=max_mix_distance,
        ),
    ]
