"""What metrics are called where people read them."""

NAMES = {
    "c_harrell": "Harrell's C",
    "c_antolini": "Antolini's C",
    "c_uno": "Uno's C",
    "ibs": "integrated Brier score",
    "cs": "CS score",
    "auc": "AUC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "dice_mean": "mean Dice of ET, TC and WT",
    "mse": "mean squared error",
    "r2": "R²",
    "pearson": "Pearson's r",
}
LOWER_IS_BETTER = ("ibs", "brier", "mse")


def with_direction(metric: str) -> str:
    """Return a metric's name and which way is better, as an axis says it."""
    if metric not in NAMES:
        return metric
    return f"{NAMES[metric]} ({'lower' if metric in LOWER_IS_BETTER else 'higher'} is better)"
