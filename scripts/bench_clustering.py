#!/usr/bin/env python3
"""Clustering against what people would use instead, side by side on the same data.

k-means: faiss-cpu from the same initial centroids, up to 20 iterations of each.
Balanced labels: Sinkhorn-Knopp in NumPy and float64, as SeLa's authors do it.

    scripts/bench_clustering.py BINARY [--repeats N] [--only NAME] [--features F.npy] [--scores S.npy]

`make bench` calls it in an environment of its own. Times are seconds of the clustering alone,
without reading files; of several repeats the median, and the range of the ratios. --features adds
a case with your own features [n, d], --scores one with your own logits [n, k].
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

# faiss's wheel carries an OpenBLAS that does not know newer processors and would take its slowest
# kernel there.
with open("/proc/cpuinfo", encoding="utf-8") as info:
    os.environ["OPENBLAS_CORETYPE"] = "SkylakeX" if "avx512f" in info.read() else "Haswell"

import faiss  # noqa: E402
import numpy as np  # noqa: E402


def normal(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def mixture(n, d, k, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, d), dtype=np.float32)
    return centres[rng.integers(0, k, n)] + 0.5 * rng.standard_normal((n, d), dtype=np.float32)


def scores(n, k, spread, seed=0):
    """Log-probabilities of a network that sees 16 directions and prefers some columns."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 16), dtype=np.float32)
    logits = spread * features @ (rng.standard_normal((16, k), dtype=np.float32) / 4)
    logits += rng.standard_normal(k, dtype=np.float32)
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def run(binary, *args):
    with tempfile.NamedTemporaryFile(suffix=".json") as stats:
        command = [binary, "cluster", *map(str, args), "--stats", stats.name, "-q"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with open(stats.name, encoding="utf-8") as file:
            return json.load(file)


def kmeans(binary, folder, points, k, repeats, *more):
    n, d = points.shape
    start = points[np.random.default_rng(1).choice(n, k, replace=False)].copy()
    features, init = f"{folder}/x.npy", f"{folder}/c.npy"
    np.save(features, points)
    np.save(init, start)
    pairs = []
    for _ in range(repeats):
        theirs = faiss.Kmeans(d, k, niter=20, max_points_per_centroid=n)
        began = time.perf_counter()
        theirs.train(points, init_centroids=start)
        seconds = time.perf_counter() - began
        distances, _ = theirs.index.search(points, 1)
        ours = run(binary, features, "-k", k, "--init", init, "--iterations", 20, *more)
        pairs.append((seconds, ours["seconds"]))
    quality = ours["objective"] / float(distances.astype(np.float64).sum())
    return pairs, f"objective {quality:.5f} of faiss's, {ours['iterations']} iterations"


def authors(log_p, lam, tolerance, limit):
    """yukimasano/self-label sinkhornknopp.py: optimize_L_sk, in our own words."""
    n, k = log_p.shape
    began = time.perf_counter()
    p = np.exp(lam * log_p.astype(np.float64)).T
    r, c = np.full((k, 1), 1 / k), np.full((n, 1), 1 / n)
    error, iterations = np.inf, 0
    while error > tolerance and iterations < limit:
        r = (1 / k) / (p @ c)
        new = (1 / n) / (r.T @ p).T
        if iterations % 10 == 0:
            error = np.nansum(np.abs(c / new - 1))
        c = new
        iterations += 1
    return time.perf_counter() - began, iterations, error, np.argmax(p * r, axis=0)


def sinkhorn(binary, folder, log_p, lam, repeats, limit):
    scores = f"{folder}/scores.npy"
    np.save(scores, log_p)
    pairs = []
    for _ in range(repeats):
        seconds, iterations, error, _ = authors(log_p, lam, 0.1, limit)
        args = ("--method", "sinkhorn", "--lambda", lam, "--tolerance", 0.1)
        ours = sorted((run(binary, scores, *args) for _ in range(3)), key=lambda stats: stats["seconds"])[1]
        pairs.append((seconds, ours["seconds"]))
    stopped = "" if error <= 0.1 else f", stopped at error {error:.2g}"
    return pairs, (
        f"{iterations} iterations{stopped} against {ours['iterations']} passes, error {ours['error']:.2g}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--features")
    parser.add_argument("--scores")
    args = parser.parse_args()
    threads = os.cpu_count()
    faiss.omp_set_num_threads(threads)
    cases = {
        "k-means, normal, 60,000 x 256, k = 1000": lambda f: kmeans(
            args.binary, f, normal(60_000, 256), 1000, args.repeats),
        "k-means, mixture, 200,000 x 128, k = 4096": lambda f: kmeans(
            args.binary, f, mixture(200_000, 128, 4096), 4096, args.repeats),
        "k-means, the same with --empty farthest": lambda f: kmeans(
            args.binary, f, mixture(200_000, 128, 4096), 4096, args.repeats, "--empty", "farthest"),
        "sinkhorn, 60,000 x 1000, λ = 25": lambda f: sinkhorn(
            args.binary, f, scores(60_000, 1000, 1.0), 25, 1, 3000),
        "sinkhorn, confident, 60,000 x 128, λ = 25": lambda f: sinkhorn(
            args.binary, f, scores(60_000, 128, 4.0), 25, 1, 3000),
        "sinkhorn, very confident, 60,000 x 128, λ = 25": lambda f: sinkhorn(
            args.binary, f, scores(60_000, 128, 16.0), 25, 1, 3000),
    }
    if args.features:
        features = np.load(args.features).astype(np.float32)
        for k in (128, 1000):
            cases[f"k-means, your features {features.shape}, k = {k}"] = lambda f, k=k: kmeans(
                args.binary, f, features, k, args.repeats)
    if args.scores:
        logits = np.load(args.scores).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        log_p = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
        cases[f"sinkhorn, your scores {log_p.shape}, λ = 25"] = lambda f: sinkhorn(
            args.binary, f, log_p, 25, 1, 30_000)
    print(f"{threads} threads, OPENBLAS_CORETYPE={os.environ['OPENBLAS_CORETYPE']}, faiss {faiss.__version__}")
    for name, case in cases.items():
        if args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            pairs, remark = case(folder)
        ratios = [theirs / ours for theirs, ours in pairs]
        theirs, ours = (statistics.median(side) for side in zip(*pairs))
        print(f"{name}: {theirs:.2f} s against {ours:.2f} s, {statistics.median(ratios):.1f}x "
              f"({min(ratios):.1f} to {max(ratios):.1f}); {remark}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
