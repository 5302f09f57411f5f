"""How much of a forgotten concept comes back when somebody tries."""

from .probes import PROBES, ProbeResult, run_probe

__all__ = ["PROBES", "ProbeResult", "run_probe"]
