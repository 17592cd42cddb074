#!/usr/bin/env python3
"""How good the labels are that `train` gives with no option but the number of clusters.

    scripts/quality.py BINARY [--only SET] [--seeds N] [--series]

`make quality` calls it in an environment of its own. For each set it trains with published weights and without
any, and prints how the labels agree with the folders (NMI), the share of images whose nearest other image, by
the cosine of their features, is of their folder (nn1), and the seconds from start to report; beside them
scikit-learn's k-means and Ward's linkage on the features of `ssl-cluster features --arch mobilenet_v2`, which are
torchvision's.

With `--series` it clusters the features of some of the images by Ward's linkage instead, for several numbers of
images and of principal components, whitened and not: how many components suit so many images.

The sets: `data/` (2,000 garments), and pictures out of Debian packages, each folder a class: stamps (309
pictures of things; tuxpaint-stamps-default) and clip-art (2,920 drawings; openclipart-png), which are fetched
into target/quality where apt-get can (300 MB); full Fashion-MNIST where `make data` has made it.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import normalized_mutual_info_score

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / "target" / "quality"
ICONS = ("shapes/stars", "computer/icons", "signs_and_symbols/flags", "special", "unsorted", "computer/buttons")


def skips_stamp(name):
    return "cartoon" in name or name.startswith(("symbols", "seasonal"))


def skips_drawing(name):
    return name.startswith(ICONS)


# Name, clusters, and for pictures of a package: the package, its folder, what is left out, the smallest class.
SETS = [
    ("stamps", 20, ("tuxpaint-stamps-default", "stamps", skips_stamp, 5)),
    ("clipart", 48, ("openclipart-png", "png", skips_drawing, 20)),
    ("data", 45, None),
    ("full", 128, None),
]
# Numbers of images and of components of a series, and how often fewer images than 5,000 are drawn.
IMAGES = (200, 500, 1_000, 2_000, 5_000, 20_000, 60_000)
COMPONENTS = (8, 16, 32, 64, 128, 256)
DRAWS = 3
# scikit-learn's linkage takes too long beyond this.
MOST_FOR_PEERS = 5_000


def unpacked(package):
    tree = PLACE / "packages" / package
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", package], cwd=tree.parent, check=True)
        archive = next(tree.parent.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, tree], check=True)
        archive.unlink()
    return tree


def gathered(name, package, folder, skips, smallest):
    """The pictures, in a folder for each of the first two folders that they lie in."""
    out = PLACE / name
    if out.exists():
        return out
    root = next(path for path in unpacked(package).rglob(folder) if path.is_dir())
    partial = PLACE / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        inside = file.relative_to(root).as_posix()
        if file.is_symlink() or skips(inside) or file.stat().st_size > 3_000_000:
            continue
        target = partial / "-".join(inside.split("/")[:-1][:2])
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / f"{number:05d}.png")
    for target in list(partial.iterdir()):
        if len(list(target.iterdir())) < smallest:
            shutil.rmtree(target)
    partial.rename(out)
    return out


def images(name, source):
    if name == "data":
        return ROOT / "data/fashion-mnist/train"
    if name == "full":
        full = ROOT / "data/full/train"
        return full if full.exists() else None
    try:
        return gathered(name, *source)
    except (OSError, StopIteration, subprocess.CalledProcessError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def classes(paths):
    return np.unique([pathlib.PurePosixPath(path).parent.name for path in paths], return_inverse=True)[1]


def nearest_agree(features, of_class):
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    hits = 0
    for start in range(0, len(features), 2048):
        near = features[start : start + 2048] @ features.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -9
        hits += (of_class[near.argmax(1)] == of_class[start : start + len(near)]).sum()
    return hits / len(features)


def features(binary, what, folder, env):
    out = PLACE / "features.npy"
    subprocess.run([binary, "features", "-q", *what, folder, "-o", out], check=True, env=env)
    paths = out.with_suffix(".paths.txt").read_text().splitlines()
    return np.load(out), classes(paths)


def trained(binary, folder, clusters, seed, env):
    run = PLACE / "run"
    shutil.rmtree(run, ignore_errors=True)
    started = time.monotonic()
    command = [binary, "train", "-q", folder, "-k", str(clusters), "--seed", str(seed), "--out", run]
    subprocess.run(command, check=True, env=env)
    seconds = time.monotonic() - started
    records = [json.loads(line) for line in open(run / "labels.jsonl")]
    labels = [record["label"] for record in records]
    nmi = normalized_mutual_info_score(classes([record["path"] for record in records]), labels)
    nn1 = nearest_agree(*features(binary, [run], folder, env))
    return labels, nmi, nn1, seconds


def clustered(binary, points, components, whiten, clusters):
    file = PLACE / "some.npy"
    np.save(file, points)
    command = [binary, "cluster", "-q", file, "-k", str(clusters), "--pca", str(components), "--l2", "--method", "ward"]
    out = subprocess.run(command + ["--whiten"] * whiten, check=True, stdout=subprocess.PIPE).stdout
    return [json.loads(line)["label"] for line in out.splitlines()]


def series(binary, name, way, folder, env):
    trained(binary, folder, 2, 0, env)
    points, of_class = features(binary, [PLACE / "run"], folder, env)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
    clusters = of_class.max() + 1
    for n in [n for n in IMAGES if n <= len(points)]:
        for whiten in (False, True):
            line = []
            for components in [c for c in COMPONENTS if c < n]:
                scores = []
                for draw in range(DRAWS if n < 5_000 else 1):
                    some = np.random.default_rng(draw).permutation(len(points))[:n]
                    labels = clustered(binary, points[some], components, whiten, clusters)
                    scores.append(normalized_mutual_info_score(of_class[some], labels))
                line.append(f"{components}: {np.mean(scores):.3f}")
            print(f"{name:<8} {way:<22} n {n:>6} {'whitened' if whiten else '        '}  {'  '.join(line)}", flush=True)


def row(name, way, nmi, nn1, seconds, agreement=None):
    seconds = "" if seconds is None else f"{seconds:7.1f} s"
    nn1 = "     " if nn1 is None else f"{nn1:.3f}"
    agreement = "" if agreement is None else f"   seeds agree at {agreement:.3f}"
    print(f"{name:<9} {way:<34} NMI {nmi:.3f}   nn1 {nn1} {seconds}{agreement}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--only", choices=[name for name, *_ in SETS])
    parser.add_argument("--seeds", type=int, default=2, help="runs of which the agreement is told (default 2)")
    parser.add_argument("--series", action="store_true", help="numbers of images and of components")
    args = parser.parse_args()
    binary = args.binary.resolve()
    PLACE.mkdir(parents=True, exist_ok=True)
    nothing = dict(os.environ, SSL_CLUSTER_WEIGHTS=str(PLACE / "none"), TORCH_HOME=str(PLACE / "none"),
                   HF_HOME=str(PLACE / "none"))
    nothing.pop("HF_HUB_CACHE", None)
    for name, clusters, source in SETS:
        folder = images(name, source) if args.only in (None, name) else None
        if folder is None:
            continue
        ways = (("with published weights", dict(os.environ)), ("from nothing", nothing))
        if args.series:
            for way, env in ways:
                series(binary, name, way, folder, env)
            continue
        for way, env in ways:
            runs = [trained(binary, folder, clusters, seed, env) for seed in range(args.seeds)]
            labels, nmi, nn1, seconds = runs[0]
            agree = [normalized_mutual_info_score(labels, other[0]) for other in runs[1:]]
            row(name, way, nmi, nn1, seconds, min(agree, default=None))
        size = ["--size", "224"]
        points, of_class = features(binary, ["--arch", "mobilenet_v2", "--precision", "f32", *size], folder, None)
        if len(points) > MOST_FOR_PEERS:
            continue
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-9)
        for way, method in (
            ("scikit-learn's k-means", KMeans(clusters, n_init=10, random_state=0)),
            ("scikit-learn's Ward", AgglomerativeClustering(clusters, linkage="ward")),
        ):
            nmi = normalized_mutual_info_score(of_class, method.fit_predict(points))
            row(name, f"{way}, torchvision's features", nmi, nearest_agree(points, of_class), None)


main()
