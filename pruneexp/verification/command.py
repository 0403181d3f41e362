"""What `prune-report --verify` does: verifies runs and prints what came of each."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pruneexp.verification.checks import UNCHECKED
from pruneexp.verification.verify import verify


def main(places: Sequence[Path], *, trust: Sequence[str] = ()) -> int:
    """Verifies runs and prints what came of each: 0 if all agree, 1 on any difference, 2 where there is no run.

    places: run folders, or folders somewhere below which there are some. trust: as in `pruneexp.load`.
    """
    worst = 0
    for folder in [folder for place in places for folder in _runs(place)]:
        try:
            result = verify(folder, trust=trust)
        except ValueError as error:
            print(f"prune-report: {' '.join(str(error).split())}", file=sys.stderr)
            worst = max(worst, 2)
            continue
        for check in result.differences:
            print(f"{folder}: {check.key}: {check.problem}: {check.reported} reported, {check.recomputed} recomputed")
        print(
            f"{folder}: {len(result.checks)} checks, {len(result.differences)} differences; not checked: "
            f"{', '.join([*UNCHECKED, *result.unchecked])}"
        )
        worst = max(worst, int(bool(result.differences)))
    return worst


def _runs(place: Path) -> list[Path]:
    """The runs in a folder; the folder itself where there are none, for the message."""
    below = sorted(path.parent for path in place.rglob("summary.json"))
    return [place] if (place / "summary.json").is_file() else below or [place]
