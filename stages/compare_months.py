"""Set every month beside those before it, and the pinned months beside what is known now.

In:  the profiles of all months, and the pinned training months.
Out: JSON with warnings and the training months that were corrected since, CSV for the plot.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lurm.console import run_stage
from lurm.params import load_params
from lurm.storage import file_hash, month_files, read_json, write_json, write_text
from lurm.validation import compare_months, comparison_rules, judge

log = logging.getLogger("compare_months")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the stage; arguments as in dvc.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("profiles", "training", "result", "plot"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    params = load_params("params.yaml")
    settings, months = params.compare_months, list(params.months)
    training = list(params.training.months)

    files = month_files(args.profiles, months, ".json")
    profiles = {month: read_json(file) for month, file in zip(months, files, strict=True)}
    pinned = month_files(args.training / "behaviors", training)
    corrected = [
        month
        for month, file in zip(training, pinned, strict=True)
        if file_hash(file) != profiles[month]["sha256"]
    ]
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
            "%s: corrected since the models were trained; raise training.release to retrain",
            ", ".join(corrected),
        )
    log.info("%d months compared, %d warnings", len(months), len(warnings))


if __name__ == "__main__":
    run_stage(main)
