"""Draw the pictures of README and docs anew: run every example that saves one in this folder, and `machine.py`.

::

    python docs/images/make.py
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent
ROOT = IMAGES.parents[1]

for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
    for code in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        if ".save(" in code:
            # From a file, since the lockstep machine reads the source of kernels.
            with tempfile.TemporaryDirectory() as folder:
                script = Path(folder) / "example.py"
                script.write_text(code, encoding="utf-8")
                environment = {**os.environ, "PYTHONPATH": str(ROOT), "PAGED_NUMBA_TARGET": "lockstep"}
                subprocess.run([sys.executable, str(script)], cwd=IMAGES, env=environment, check=True)

environment = {**os.environ, "PYTHONPATH": str(ROOT)}
subprocess.run([sys.executable, str(IMAGES / "machine.py")], env=environment, check=True)
