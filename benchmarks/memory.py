"""Peak memory of aligning a 512 x 512 x 600 scan, as a ratio to the scan's int16 size.

Run: python benchmarks/memory.py [--json PATH]

The scan is made and written by a process of its own; another reads, prepares, encodes and aligns
it, and reports the peak resident size it reached beyond what it held with the model loaded.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPE = (512, 512, 600)
INT16_GIB = SHAPE[0] * SHAPE[1] * SHAPE[2] * 2 / 2**30


def write_scan(path: Path) -> None:
    """A noisy block with an air rim, as hard to compress as a real scan."""
    import nibabel as nib
    import numpy as np

    rng = np.random.default_rng(0)
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    for z in range(SHAPE[2]):
        plane = rng.normal(-300, 300, (400, 400))
        hu[56:456, 56:456, z] = np.clip(plane, -1024, 1500).astype(np.int16)
    image = nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 0.6, 1.0]))
    nib.save(image, path)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def align_scan(ct: Path, placement: str) -> dict[str, float]:
    from simcrop_core import align, create_model, read_volume

    model = create_model("starter")
    model.encode_text(["A sentence."])
    model_mib = peak_mib()
    volume = read_volume(ct)
    read_mib = peak_mib()
    align(model, volume, queries=["The heart is enlarged."], placement=placement)
    return {"model_mib": model_mib, "read_mib": read_mib, "peak_mib": peak_mib()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="PATH", help="write the figures here")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--align", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--placement", default="center", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        return write_scan(arguments.write)
    if arguments.align:
        return print(json.dumps(align_scan(arguments.align, arguments.placement)))
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        ct = Path(folder) / "ct.nii.gz"
        subprocess.run([sys.executable, __file__, "--write", ct], check=True)
        for placement in ("center", "lungs", "tiled"):
            command = [sys.executable, __file__, "--align", ct, "--placement", placement]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[placement] = json.loads(done.stdout.splitlines()[-1])
    print(f"scan 512 x 512 x 600: {INT16_GIB * 1024:.0f} MiB as int16")
    for placement, figures in results.items():
        limit = 1.5 * INT16_GIB * 1024 + figures["model_mib"] + 1024
        figures["limit_mib"] = limit
        print(
            f"{placement:7s} with model loaded {figures['model_mib']:6.0f} MiB, "
            f"after reading {figures['read_mib']:6.0f}, peak {figures['peak_mib']:6.0f}, "
            f"goal below {limit:6.0f}"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
