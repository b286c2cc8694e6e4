"""Compares what `lavie plan` predicts with what a process takes: run `python benchmarks/plan_memory.py --help`.

Each case is planned in one process and run in another, with random weights, on one thread. Measured is the highest
resident memory (VmHWM, reset once all libraries are loaded) above what was resident then.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = {
    "base-tiny": ["base-tiny", "sampler.num_inference_steps=2"],
    "cascade-tiny": [
        "cascade-tiny",
        *(f"{s}.sampler.num_inference_steps=1" for s in ("base", "interpolation", "upscaling")),
    ],
    "mid-size": [
        "base-tiny",
        "sampler.num_inference_steps=1",
        "guidance=none",
        "video={num_frames: 16, height: 256, width: 384}",
        "denoiser.channels=[96, 192, 288]",
    ],
    "base, 4 frames of 160×256": [
        "base",
        "sampler.num_inference_steps=1",
        "guidance=none",
        "video={num_frames: 4, height: 160, width: 256}",
    ],
    "upscaling, 2 frames of 256×384": [
        "upscaling",
        "sampler.num_inference_steps=1",
        "guidance=none",
        "video={num_frames: 2, height: 256, width: 384}",
    ],
}
"""Spec and overrides. Steps do not change the peak; one is enough."""


def main() -> None:
    """Print a row for every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=[*CASES], help=f"of {', '.join(CASES)}")
    parser.add_argument("--in-turn", action="store_true")
    parser.add_argument("--child", choices=["plan", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.cases, options.in_turn, options.folder)
        return
    print(
        "| case | weights | predicted growth | measured growth | measured / predicted | seconds predicted | measured |"
    )
    for name in options.cases:
        row(name, options.in_turn)


def row(name: str, in_turn: bool) -> None:
    """Plan and run one case."""
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for kind in ("plan", "run"):
            command = [sys.executable, __file__, "--child", kind, "--folder", folder, *CASES[name]]
            done = subprocess.run([*command, *["--in-turn"] * in_turn], stdout=subprocess.PIPE, text=True, check=True)
            answers[kind] = json.loads(done.stdout.splitlines()[-1])
    plan, run = answers["plan"], answers["run"]
    ratio = run["growth"] / plan["growth"]
    cells = [f"{plan['weights'] / 1e6:.0f} MB", f"{plan['growth'] / 1e6:.0f} MB", f"{run['growth'] / 1e6:.0f} MB"]
    print(
        "|",
        " | ".join([name, *cells, f"{ratio:.2f}", f"{plan['seconds']:.1f}", f"{run['seconds']:.1f}"]),
        "|",
        flush=True,
    )


def child(kind: str, case: list[str], in_turn: bool, folder: Path) -> None:
    """Plan or run, and print what came out."""
    import torch

    from lavie.planning import Planner, Setting, measure_rates
    from lavie.planning.plan import LIBRARIES
    from lavie.planning.process import give_memory_back, resident_bytes, trim
    from lavie.registry import installed
    from lavie.specfile import load_spec
    from lavie.stages import LatentDiffusion, Request, load_stage
    from lavie.video import write_video
    from lavie.weights.stored import save_stage

    torch.set_num_threads(1)
    spec = load_spec(case[0], installed(), case[1:], "stage")
    if kind == "plan":
        made = Planner(installed()).measure(Setting(spec, torch.device("cpu"), torch.float32, in_turn))
        weights = sum(need.weights for need in made.needs)
        seconds = sum(made.seconds(measure_rates(torch.device("cpu"), torch.float32)).values())
        print(json.dumps({"growth": made.highest - made.program + LIBRARIES, "weights": weights, "seconds": seconds}))
        return
    for name, part in spec.parts().items():
        stage = part.build()
        assert isinstance(stage, LatentDiffusion)
        save_stage(stage.networks(), part, folder / "weights" / name)
        del stage
    give_memory_back()
    write_video(Path(folder) / "warm.mp4", iter(torch.zeros(2, 64, 64, 3, dtype=torch.uint8).numpy()), 8)
    trim()
    before = resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    made = load_stage(spec, folder / "weights", in_turn=in_turn).generate([Request("a")])
    write_video(folder / "video.mp4", made.pictures(), made.fps)
    lines = Path("/proc/self/status").read_text().splitlines()
    highest = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"growth": highest - before, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
