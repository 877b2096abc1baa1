"""Set every month beside those before it, and the pinned months beside what is known now.

In:  the profiles of all months, the pinned training months, the labels.
Out: JSON with warnings and the training and label months that were corrected since, CSV for the plot.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.console import run_stage
from lurm.params import load_params
from lurm.storage import file_hash, month_files, read_json, read_schema, write_json, write_text
from lurm.validation import compare_months, comparison_rules, judge

log = logging.getLogger("compare_months")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("profiles", "training", "labels", "result", "plot"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings, months = params.compare_months, list(params.months)
    training, labelled = list(params.training.months), list(params.evaluation.label_months)

    files = month_files(args.profiles, months, ".json")
    profiles = {month: read_json(file) for month, file in zip(months, files, strict=True)}
    pinned = month_files(args.training / "behaviors", training)
    used = dict(zip(training, map(file_hash, pinned), strict=True))
    for month, file in zip(labelled, month_files(args.labels, labelled), strict=True):
        source = read_schema(file).metadata or {}
        used[month] = source.get(b"behaviors_sha256", b"").decode()
    corrected = [month for month, sha256 in used.items() if sha256 != profiles[month]["sha256"]]
    frame = compare_months(profiles, settings.window)
    rules = comparison_rules(settings.max_volume_change, settings.max_mix_distance, settings.window)
    failed = [verdict for verdict in judge(frame, rules, "months") if not verdict.success]
    warnings = [
        {"month": month, "figure": verdict.rule.figure, "value": value}
        for verdict in failed
        for month, value in verdict.failed.items()
    ]
    write_json(
        {
            "months": len(months),
            "n_warnings": len(warnings),
            "warnings": warnings,
            "n_due_for_retraining": len(corrected),
            "due_for_retraining": corrected,
        },
        args.result,
    )
    write_text(
        frame.to_csv(index_label="month", float_format="%.6g", lineterminator="\n"), args.plot
    )
    for verdict in failed:
        log.warning("%s: %s", ", ".join(verdict.failed), verdict.sentence())
    if corrected:
        log.warning(
            "%s: corrected since models and heads were trained; raise training.release to retrain",
            ", ".join(corrected),
        )
    log.info("%d months compared, %d warnings", len(months), len(warnings))


if __name__ == "__main__":
    run_stage(main)
