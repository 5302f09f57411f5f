"""``python -m unlearn_core``."""

import gc
import sys

from .job.cli import main

status = main()
gc.freeze()  # Python's last garbage collection takes two seconds, which Ctrl+C would wait for
sys.exit(status)
