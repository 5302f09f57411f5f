"""The demo job: forget one concept, evaluate, save. ``python run.py demo``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from demo.jobs import CANVASES, job_settings
from unlearn_core.dataset.drawing import LatentCache
from unlearn_core.job.console import CACHE, Bars, say
from unlearn_core.job.job import Job
from unlearn_core.reporting.report import summary, table
from unlearn_core.unlearning.settings import UnlearnSettings


def main() -> int:
    defaults = UnlearnSettings()
    parser = argparse.ArgumentParser(prog="python run.py demo", description=__doc__)
    parser.add_argument("--concept", default="ink", help="style, object or digit (%(default)s)")
    parser.add_argument(
        "--model",
        choices=CANVASES,
        default="emoji",
        help="for a style or object: 'flow' is a flow-matching model in the shape of Stable "
        "Diffusion 3 (%(default)s)",
    )
    parser.add_argument("--steps", type=int, default=defaults.steps, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="(%(default)s)")
    options = parser.parse_args()
    bars = Bars()
    try:
        unlearn = replace(defaults, steps=options.steps, seed=options.seed)
        settings = job_settings(options.concept, unlearn, CANVASES[options.model])
        job = Job(settings, options.out, cache=LatentCache(CACHE), progress=bars)
        unlearned = job.unlearn()
        report = job.evaluate(unlearned)
        job.save(unlearned)
        job.resumption.remove()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        bars.close()
    say(f"\n{table(report)}\n\n{summary(report)}")
    times = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in job.seconds.items())
    say(f"It took {sum(job.seconds.values()):.0f} s: {times}.")
    say(f"Open {options.out / 'report.html'}; the model is in {options.out / 'model'}.")
    return 0
