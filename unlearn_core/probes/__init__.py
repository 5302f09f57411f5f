"""How much of a forgotten concept comes back when somebody tries."""

from .probes import PROBES, WORDED, ProbeResult, run_probe

__all__ = ["PROBES", "WORDED", "ProbeResult", "run_probe"]
