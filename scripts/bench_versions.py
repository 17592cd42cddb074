"""Times two builds of ssl-cluster against each other: bench_versions.py BEFORE AFTER [PAIRS]

Each row is run by both in turn, PAIRS times (5 where nothing is said), and prints by how much the second one is
faster: the median of the pairs, and the least and the largest. Needs nothing but the two programs and data/.
"""

import array
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "data/fashion-mnist"


def write_npy(path, rows, columns, draw):
    """A matrix of f32, row by row, as NumPy writes it."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
        for _ in range(rows):
            array.array("f", draw(columns)).tofile(file)


def mixture(rng, places):
    def draw(columns):
        place = rng.choice(places)
        return [x + rng.gauss(0, 1) for x in place[:columns]]

    return draw


def seconds(program, *args):
    started = time.perf_counter()
    done = subprocess.run([program, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{program} {' '.join(map(str, args))}: exit code {done.returncode}\n{done.stderr}")
    return time.perf_counter() - started


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__.strip())
    before, after = sys.argv[1:3]
    pairs = int(sys.argv[3]) if len(sys.argv) == 4 else 5
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        places = [[rng.gauss(0, 3) for _ in range(96)] for _ in range(300)]
        write_npy(folder / "points.npy", 60_000, 96, mixture(rng, places))
        write_npy(folder / "scores.npy", 20_000, 300, lambda n: [rng.gauss(0, 2) for _ in range(n)])
        train, test = IMAGES / "train", IMAGES / "test"
        of_run = folder / "run"
        # Runs of an earlier program are read by a later one.
        subprocess.run([before, "train", train, "--out", of_run, "--epochs", "1", "-q"], check=True)
        points, scores, out = folder / "points.npy", folder / "scores.npy", folder / "out"

        def training(method, epochs, *more):
            def args():
                subprocess.run(["rm", "-rf", out], check=True)
                return ["train", train, "--out", out, "--method", method, "--epochs", epochs, "-q", *more]

            return args

        rows = {
            "k-means, 60,000 x 96, k = 1,000": lambda: ["cluster", points, "-k", 1000],
            "k-means after PCA and whitening, k = 100": lambda: ["cluster", points, "-k", 100, "--pca", 48, "--whiten", "--l2"],
            "sinkhorn, 20,000 x 300": lambda: ["cluster", scores, "--method", "sinkhorn"],
            "images, ten passes with views": lambda: ["inspect", train, "--epochs", 10, "--augment", "--json"],
            "deepcluster, 4 epochs": training("deepcluster", 4),
            "sela, 4 epochs": training("sela", 4),
            "rotation, 4 epochs": training("rotation", 4),
            "deepcluster, resnet18, 1 epoch": training("deepcluster", 1, "--arch", "resnet18"),
            "assign, 500 images": lambda: ["assign", of_run, test],
            "features, resnet18, 500 images": lambda: ["features", "--arch", "resnet18", "--size", 64, test, "-o", folder / "f.npy"],
        }
        for name, args in rows.items():
            ratios = []
            for turn in range(pairs):
                took = [0.0, 0.0]
                for which in (0, 1) if turn % 2 == 0 else (1, 0):
                    took[which] = seconds((before, after)[which], *args())
                ratios.append(took[0] / took[1])
            low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
            print(f"{name:<45} {middle:.2f}x ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
