"""``python -m unlearn_core``."""

from .foundation.signals import ending_at_once, exit_with

with ending_at_once():
    from .job.cli import main

exit_with(main)
