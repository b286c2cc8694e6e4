"""How far long videos of the embedded models drift from their beginning, under every coverage.

python -m benchmarks.drift --videos 8
"""

import argparse
import sys
import time
from collections.abc import Mapping

import lavie
from benchmarks.measuring import quartiles
from lavie.errors import LavieError
from lavie.metrics.drift import DriftSpec

COVERAGES = {
    "windows": ("base-tiny", "{type: windows, num_frames: 16, overlap: 12}"),
    "free_noise": ("base-tiny", "{type: free_noise, num_frames: 16, overlap: 12}"),
    "fifo": ("base-tiny", "{type: fifo, num_frames: 16, overlap: 8}"),
    "recursive": ("first-frame-tiny", "{type: recursive, num_frames: 16, overlap: 4}"),
    "clips end to end": ("base-tiny", "{type: windows, num_frames: 16, overlap: 0}"),
}
"""Spec and coverage. Clips that know nothing of each other show how far apart two videos of one prompt are."""
PROMPTS = (
    "a red circle standing still on a black background",
    "a blue star circling on a gray background",
    "a green triangle standing still on a navy background",
    "a white ring circling on a brown background",
    "a yellow heart standing still on a gray background",
    "a purple square circling on a black background",
    "an orange cross standing still on a navy background",
    "a cyan moon circling on a brown background",
)
"""They say the background, and motions that have no end: what leaves the picture would count as drift."""


def measured(name: str, num_frames: int, segment: int, count: int) -> dict[str, list[float]]:
    """Return what the last segment's drift is in each video, by measure, and the seconds each took."""
    spec, coverage = COVERAGES[name]
    overrides = [f"video.num_frames={num_frames}", f"coverage={coverage}"]
    found: dict[str, list[float]] = {"colour": [], "sharpness": [], "identity": [], "seconds": []}
    for number in range(count):
        start = time.perf_counter()
        video = lavie.generate(PROMPTS[number % len(PROMPTS)], spec=spec, overrides=overrides, seed=number).video
        found["seconds"].append(time.perf_counter() - start)
        metric = DriftSpec(segment=segment).build()
        metric.update(video[None])
        values = metric.compute()
        for measure in ("colour", "sharpness", "identity"):
            found[measure].append(values[f"{measure}_{num_frames // segment}"])
    return found


def row(name: str, found: Mapping[str, list[float]]) -> str:
    """Return a row of the table: medians, and quartiles in brackets."""
    cells = [name]
    for values in found.values():
        q = quartiles(values)
        cells.append(f"{q['median']:.3g} ({q['q1']:.3g} to {q['q3']:.3g})")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coverages", nargs="*", default=[*COVERAGES], help=f"some of {', '.join(COVERAGES)}")
    parser.add_argument("--videos", type=int, default=len(PROMPTS), help="videos for each coverage")
    parser.add_argument("--num-frames", type=int, default=48)
    parser.add_argument("--segment", type=int, default=16, help="frames of a part; the last and the first are compared")
    options = parser.parse_args()
    if unknown := [name for name in options.coverages if name not in COVERAGES]:
        parser.error(f"unknown coverage {unknown[0]!r}; known: {', '.join(COVERAGES)}")
    if options.num_frames < 2 * options.segment or options.videos < 1:
        parser.error("drift needs a video, of two segments at least")
    print("| coverage | colour | sharpness | identity | seconds |\n|---|---|---|---|---|")
    try:
        for name in options.coverages:
            found = measured(name, options.num_frames, options.segment, options.videos)
            print(row(name, found), flush=True)
    except LavieError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
