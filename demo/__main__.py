"""``python -m demo``, which ``python run.py demo`` calls."""

from unlearn_core.foundation.signals import ending_at_once, exit_with

with ending_at_once():
    from demo.erase import main

exit_with(main)
