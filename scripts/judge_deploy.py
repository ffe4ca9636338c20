"""Reads the JSON object of ``svitkit deploy`` and fails unless it keeps what the README promises."""

import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Prints the key figures and exits with 1 where a promise is broken."""
    result = json.loads(Path(path).read_text())
    drop = result["accuracy_before"] - result["accuracy_after"]
    broken = [
        text
        for text, kept in (
            ("golden_match is not true", result["golden_match"] is True),
            ("memory_saving is below 0.25", result["memory_saving"] >= 0.25),
            ("accuracy dropped by more than 3 points", drop <= 3.0),
        )
        if not kept
    ]
    print(
        f"{result['board']}: saving {result['memory_saving']:.3f}, drop {drop:.2f} points, "
        f"p50 {result['latency_ms']['p50']:.3f} ms, valid {result['valid']}"
    )
    if broken:
        sys.exit("broken promise: " + "; ".join(broken))


if __name__ == "__main__":
    main(sys.argv[1])
