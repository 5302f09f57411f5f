"""What differs between the versions of a library that people have."""

from __future__ import annotations

import transformers
from packaging.version import Version

# The name of an argument of transformers; older versions do not understand the new one.
DTYPE = "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
