"""CuPy for a process that has this folder on its path: the stand-in, as ``FAKE_CUPY`` says in JSON (arguments of `FakeCupy`)."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from tests.backends.cupy.fake_cupy import FakeCupy

fake: Any = FakeCupy(**json.loads(os.environ.get("FAKE_CUPY", "{}")))
libraries = SimpleNamespace(nvrtc=fake.cuda.nvrtc, cublas=None)  # which it does without
modules: dict[str, Any] = {"cupy": fake, "cupy.cuda": libraries}
sys.modules.update(modules)
