"""The checks of scripts/check_cuda.sh, which see."""
import argparse
import array
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "fashion-mnist"
# A run that is to be compared with another one: long enough to be interrupted.
EPOCHS = 3
# Options with which two epochs show a loss that falls: no head is thrown away between them.
STEADY = {"deepcluster": ["--reassign", "2"]}


class Failed(Exception):
    """A check that found something else than it should."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


class Place:
    """What the checks share: the binary, where to work, how much."""

    def __init__(self, args, folder):
        self.cpu, self.binary, self.folder = args.cpu, str(Path(args.binary).resolve()), Path(folder)
        self.device = "cpu" if args.cpu else "cuda"
        # A processor that does not multiply bf16 takes fifty times as long in it.
        self.lower = "auto" if args.cpu else "bf16"
        self.images = SAMPLE / ("test" if args.cpu else "train")
        self.environment = {k: v for k, v in os.environ.items() if k != "SSL_CLUSTER_DEVICE"}

    def start(self, *args, out=subprocess.DEVNULL):
        command = [self.binary, *map(str, args)]
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=ROOT
        )

    def run(self, *args, code=0):
        """What the program says, (stdout, stderr)."""
        process = self.start(*args, out=subprocess.PIPE)
        out, said = process.communicate(timeout=240)
        if process.returncode != code:
            raise Failed(f"`{' '.join(map(str, args))}` ended with {process.returncode}: {said.strip()[-300:]}")
        expect("Warning" not in said, f"libtorch warns: {said.strip()[-200:]}")
        return out, said

    def train(self, name, *args, images=None, device=None):
        run = self.folder / name
        _, said = self.run("train", images or self.images, "--out", run, "--device", device or self.device, *args)
        return run, said

    def methods(self):
        lines = self.run("methods")[0].splitlines()
        return [line for line in lines if line and not line.startswith(" ")]

    def many(self, times):
        """A folder in which the sample's images lie so many times, as links."""
        folder = self.folder / f"many-{times}"
        if not folder.exists():
            folder.mkdir()
            for number, file in enumerate(sorted(self.images.rglob("*.png")) * times):
                (folder / f"{number:06}.png").symlink_to(file)
        return folder


def records(run, kind):
    with open(run / "metrics.jsonl", encoding="utf-8") as file:
        return [record for record in map(json.loads, file) if record["kind"] == kind]


def labels(text):
    return [json.loads(line)["label"] for line in text.splitlines()]


def tensors(path):
    """Every tensor of a safetensors file as bytes or, where it is f32, as numbers."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    head.pop("__metadata__", None)
    found = {}
    for name, entry in head.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        found[name] = array.array("f", data[start:end]) if entry["dtype"] == "F32" else data[start:end]
    return found


def difference(a, b):
    """The relative difference of two files' weights; 0 where they are equal to the bit."""
    a, b = tensors(a), tensors(b)
    expect(a.keys() == b.keys(), "the files hold other tensors")
    if a == b:
        return 0.0
    off = size = 0.0
    for name, numbers in a.items():
        if isinstance(numbers, array.array):
            off += sum((x - y) ** 2 for x, y in zip(numbers, b[name]))
            size += sum(x * x for x in numbers)
    return (off / size) ** 0.5


def write_npy(path, rows):
    """Rows of numbers as f32 [n, d]."""
    rows = [array.array("f", row) for row in rows]
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode())
        for row in rows:
            file.write(row.tobytes())


def peer(name, *args, limit=150):
    """Figures of PyTorch on the same card, from a process of its own."""
    command = [sys.executable, __file__, "--peer", name, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


# The checks: each is a generator of (name, verdict, figures) or raises.

def doctor(place):
    out, _ = place.run("doctor")
    line = next((line.split(None, 1)[1] for line in out.splitlines() if "cuda:0  " in line), "no CUDA device")
    if not place.cpu:
        expect("no CUDA" not in line, f"doctor sees no device:\n{out}")
    yield "doctor", "ok", line
    out, said = "", ""
    process = place.start("doctor", "--check", "--device", place.device, out=subprocess.PIPE)
    out, said = process.communicate(timeout=240)
    for line in out.splitlines():
        verdict, rest = line.split(None, 1)
        name, figures = rest[:34].strip(), rest[34:].strip()
        yield name, verdict, figures
    expect(process.returncode == 0, said.strip())


def methods(place):
    for method in place.methods():
        for precision in ["f32", place.lower]:
            name = f"{method} {precision}"
            try:
                yield name, "ok", two_epochs(place, method, precision)
            except Failed as reason:
                yield name, "FAILED", str(reason)


def two_epochs(place, method, precision):
    run, _ = place.train(
        f"{method}-{precision}", "--method", method, "--precision", precision, "--epochs", 2,
        *STEADY.get(method, []),
    )
    first, last = (epoch["loss"] for epoch in records(run, "epoch"))
    expect(last < first, f"the loss goes from {first:.3f} to {last:.3f}")
    own = labels((run / "labels.jsonl").read_text())
    given = labels(place.run("assign", run, place.images, "--device", place.device)[0])
    same = sum(a == b for a, b in zip(own, given)) / len(own)
    expect(len(own) == len(given) and same >= 0.999, f"assign gives {same:.1%} of the labels back")
    return f"loss {first:.3f} to {last:.3f}, assign gives {same:.1%} of the labels back"


def resume(place):
    for method in place.methods():
        options = ["--method", method, "--precision", "f32", "--epochs", EPOCHS]
        whole, _ = place.train(f"whole-{method}", *options)
        run = place.folder / f"cut-{method}"
        process = place.start("train", place.images, "--out", run, "--device", place.device, *options)
        checkpoint = run / "checkpoint"
        while process.poll() is None and not (checkpoint.exists() and any(checkpoint.iterdir())):
            time.sleep(0.005)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        if process.returncode != 130:
            yield f"resume {method}", "FAILED", f"it could not be interrupted: {process.returncode} {said[-200:]}"
            continue
        place.run("train", "--resume", run)
        cut = difference(whole / "model.safetensors", run / "model.safetensors")
        if cut == 0:
            yield f"resume {method}", "ok", "interrupted and resumed: equal to the bit"
            continue
        # Where kernels do not repeat, a resumed run is as near as another run.
        again, _ = place.train(f"again-{method}", *options)
        apart = difference(whole / "model.safetensors", again / "model.safetensors")
        told = f"interrupted and resumed: weights differ by {cut:.1e}; a second run's by {apart:.1e}"
        yield f"resume {method}", "ok" if cut <= 2 * apart else "FAILED", told


def neighbours(place):
    """kNN accuracy of the device's features beside the CPU's, from the same first weights."""
    found = {}
    for device in dict.fromkeys([place.device, "cpu"]):
        run, _ = place.train(f"knn-{device}", "--arch", "conv4", "--precision", "f32", "--epochs", 5, device=device)
        out, _ = place.run("eval", run, SAMPLE / "test", "--train", SAMPLE / "train", "--device", device)
        found[device] = json.loads(out)["knn_accuracy"]
    off = abs(found[place.device] - found["cpu"])
    told = ", ".join(f"{device} {accuracy:.1%}" for device, accuracy in found.items())
    yield "kNN", "ok" if off <= 0.015 else "FAILED", f"{told} (1.5 points allowed)"


def kmeans(place):
    path, k = place.folder / "points.npy", 20 if place.cpu else 4096
    n, d = (2_000, 16) if place.cpu else (1_000_000, 256)
    theirs = {}
    if place.cpu:
        rng = random.Random(0)
        centres = [[rng.gauss(0, 1) for _ in range(d)] for _ in range(k)]
        write_npy(path, ([x + rng.gauss(0, 0.5) for x in rng.choice(centres)] for _ in range(n)))
    else:
        theirs = peer("kmeans", path, n, d, k)
    stats = place.folder / "stats.json"
    place.run("cluster", path, "-k", k, "--iterations", 10, "--device", place.device, "--stats", stats)
    history = json.loads(stats.read_text())["history"]
    ours = 1000 * statistics.median(step["seconds"] for step in history[1:])
    expect(history[-1]["objective"] < history[0]["objective"], "the objective does not fall")
    told = f"{n:,} x {d}, k = {k:,}: {ours:.1f} ms an iteration"
    if not theirs:
        yield "k-means, speed", "ok", told
        return
    ratio = ours / theirs["product"]
    told += f"; the f32 product alone {theirs['product']:.1f} ms: {ratio:.2f}x (at most 2x); plain torch "
    told += f"{theirs['plain']:.1f} ms" + "".join(f"; {name} {ms:.1f} ms" for name, ms in theirs["others"].items())
    yield "k-means, speed", "ok" if ratio <= 2 else "below", told


def sinkhorn(place):
    path, k = place.folder / "scores.npy", 10 if place.cpu else 1000
    n = 2_000 if place.cpu else 1_000_000
    if place.cpu:
        rng = random.Random(0)
        write_npy(path, ([2 * rng.gauss(0, 1) for _ in range(k)] for _ in range(n)))
    else:
        peer("scores", path, n, k)
    stats = place.folder / "balance.json"
    place.run("cluster", path, "--method", "sinkhorn", "--lambda", 25, "--memory", 16, "--stats", stats)
    path.unlink()
    found = json.loads(stats.read_text())
    sizes = found["sizes"]
    told = f"{n:,} x {k:,}: {found['seconds']:.1f} s on the CPU, {found['iterations']} passes, "
    yield "Sinkhorn", "ok", told + f"sizes {min(sizes)} to {max(sizes)}"


def label_step(place):
    times = 1 if place.cpu else 30
    run, _ = place.train(
        "sela-step", "--method", "sela", "--clusters", 20 if place.cpu else 200, "--heads", 2,
        "--epochs", 1, "--label-steps", 2, images=place.many(times),
    )
    step = records(run, "labels")[-1]
    seconds = step["seconds"]
    told = f"{len(list(place.many(times).iterdir())):,} images, {step['clusters']} clusters, 2 heads: extraction "
    yield "SeLa's label step", "ok", told + f"{seconds['extract']:.2f} s, transport {seconds['cluster']:.2f} s"


def resnet(place):
    images, size, batch, arch = place.many(1 if place.cpu else 20), 224, 256, "resnet50"
    precision = place.lower
    if place.cpu:
        size, batch, arch = 32, 64, "resnet18"
        images = place.folder / "few"
        images.mkdir()
        for file in list(place.many(1).iterdir())[:128]:
            (images / file.name).symlink_to(file.resolve())
    options = ["--arch", arch, "--size", size, "--precision", precision, "--batch-size", batch, "-k", 30]
    epochs = 1 if place.cpu else 2
    run, _ = place.train("speed", *options, "--epochs", epochs, "--reassign", epochs, images=images)
    epoch, step = records(run, "epoch")[-1], records(run, "labels")[-1]
    train = epoch["images_per_second"]
    extract = epoch["images_seen"] / epochs / step["seconds"]["extract"]
    few = images if place.cpu else place.many(6)
    run, _ = place.train("wait", *options, "--epochs", 2, "--reassign", 2, "--profile", images=few)
    profile = records(run, "epoch")[-1]["profile"]
    parts = ["wait", "copy", "augment", "forward", "backward", "optimiser"]
    whole = sum(profile[part] for part in parts)
    shares = ", ".join(f"{part} {profile[part] / whole:.1%}" for part in parts)
    wait = profile["wait"] / whole
    told = f"{arch}, {size} px, {precision}, batches of {batch}: "
    if place.cpu:
        yield "training", "ok", f"{told}{train:,.0f} images/s"
        yield "extraction", "ok", f"{told}{extract:,.0f} images/s"
        yield "waiting for data", "ok", shares
        return
    for mode in ["eager", "compiled"]:
        try:
            theirs = peer("resnet", mode, batch, size)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            yield f"{arch}, {mode}", "--", f"PyTorch's is not measured: {error}"
            continue
        for what, ours in [("train", train), ("extract", extract)]:
            ratio = ours / theirs[what]
            # Its pixels lie on the card already; ours come from the cache.
            name = {"train": "training", "extract": "extraction"}[what] + f" beside {mode} PyTorch"
            goal = mode == "compiled" or ratio >= 1
            verdict = "ok" if goal else "below"
            yield name, verdict, f"{told}{ours:,.0f} images/s, theirs {theirs[what]:,.0f}: {ratio:.2f}x"
    yield "waiting for data", "ok" if wait < 0.02 else "below", shares


def memory(place):
    """A batch that no card holds goes through in parts; on a CPU it is only large."""
    images = place.folder / "few" if place.cpu else place.many(6)
    options = ["--size", 32, "--arch", "conv4"] if place.cpu else ["--size", 224, "--arch", "resnet50"]
    run, said = place.train("memory", *options, "--batch-size", 100_000, "--epochs", 1, "-k", 20, images=images)
    parts = [line.strip() for line in said.splitlines() if "does not fit" in line]
    if not place.cpu:
        expect(parts, "a batch of all images went through at once, or without a word")
    own = labels((run / "labels.jsonl").read_text())
    told = parts[-1] if parts else f"a batch of {len(own)} went through"
    yield "batch of 100,000", "ok", told


CHECKS = [doctor, methods, resume, neighbours, kmeans, sinkhorn, label_step, resnet, memory]


# PyTorch on the same card, each in a process of its own.

def milliseconds(work, times=7):
    import torch

    work()
    torch.cuda.synchronize()
    found = []
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return statistics.median(found)


def peer_kmeans(path, n, d, k):
    import numpy
    import torch

    n, d, k = int(n), int(d), int(k)
    torch.manual_seed(0)
    centres = torch.randn(k, d, device="cuda")
    points = centres[torch.randint(k, (n,), device="cuda")] + 0.9 * torch.randn(n, d, device="cuda")
    numpy.save(path, points.cpu().numpy())
    centroids = points[torch.randperm(n, device="cuda")[:k]].contiguous()
    rows = 1 << 16
    out = torch.empty(rows, k, device="cuda")

    def product():
        for part in points.split(rows):
            torch.mm(part, centroids.t(), out=out[: len(part)])

    def plain():
        half = centroids.square().sum(1) / 2
        labels = torch.cat([(part @ centroids.t() - half).argmax(1) for part in points.split(rows)])
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        return sums / labels.bincount(minlength=k).clamp(min=1)[:, None]

    others = {}
    try:
        import faiss

        kmeans = faiss.Kmeans(d, k, niter=10, gpu=True, max_points_per_centroid=n)
        host = points.cpu().numpy()
        began = time.perf_counter()
        kmeans.train(host, init_centroids=centroids.cpu().numpy())
        others["faiss"] = 100 * (time.perf_counter() - began)
    except Exception:  # noqa: BLE001: not there, or without its GPU part
        pass
    try:
        from flash_kmeans import batch_kmeans_Euclid

        one = milliseconds(lambda: batch_kmeans_Euclid(points[None], k, max_iters=10), 3)
        others["flash-kmeans"] = one / 10
    except Exception:  # noqa: BLE001
        pass
    return {"product": milliseconds(product), "plain": milliseconds(plain), "others": others}


def peer_scores(path, n, k):
    import numpy
    import torch

    torch.manual_seed(0)
    features = torch.randn(int(n), 64, device="cuda")
    logits = features @ torch.randn(64, int(k), device="cuda") * 0.25
    numpy.save(path, logits.cpu().numpy())
    return {}


def peer_resnet(mode, batch, size):
    import torch
    import torchvision
    from torch import nn

    batch, size = int(batch), int(size)
    stored = size * 256 // 224
    model = torchvision.models.resnet50(num_classes=100).cuda().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-5)
    run = torch.compile(model) if mode == "compiled" else model
    pixels = torch.randint(0, 256, (2048, stored, stored, 3), dtype=torch.uint8, device="cuda")
    mean, deviation = (
        255 * torch.tensor(three, device="cuda") for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    classes = torch.randint(100, (batch,), device="cuda")

    def views():
        left, top = (random.randrange(stored - size) for _ in range(2))
        some = pixels[torch.randint(len(pixels), (batch,), device="cuda"), top : top + size, left : left + size]
        return ((some.float() - mean) / deviation).permute(0, 3, 1, 2)

    def train():
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(run(views()), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    def extract():
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            run(views())

    speed = {"train": batch / milliseconds(train, 15) * 1000}
    model.eval()
    return speed | {"extract": batch / milliseconds(extract, 15) * 1000}


PEERS = {name[5:]: work for name, work in list(globals().items()) if name.startswith("peer_")}


def main():
    parser = argparse.ArgumentParser(prog="scripts/check_cuda.sh", description=__doc__)
    parser.add_argument("binary", nargs="?", default=ROOT / "target" / "release" / "ssl-cluster")
    parser.add_argument("--cpu", action="store_true", help="every check on the CPU, small")
    parser.add_argument("--only", default="", metavar="WORD", help="checks whose name holds it, of: "
                        + ", ".join(check.__name__ for check in CHECKS))
    parser.add_argument("--keep", metavar="DIR", help="work there, and leave what was made")
    args = parser.parse_args()
    if not os.access(args.binary, os.X_OK):
        parser.error(f"there is no program '{args.binary}': build it with make build, or name it")
    shared = Path("/dev/shm")
    parent = shared if not args.cpu and os.access(shared, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        if args.keep:
            Path(args.keep).mkdir(parents=True, exist_ok=True)
        place, rows, began = Place(args, args.keep or folder), [], time.perf_counter()
        for check in CHECKS:
            if args.only not in check.__name__:
                continue
            try:
                for row in check(place):
                    rows.append(row)
                    print(f"{time.perf_counter() - began:6.1f} s  {row[1]:<6}  {row[0]}: {row[2]}", file=sys.stderr, flush=True)
            except Exception as error:  # noqa: BLE001: the other checks go on
                rows.append((check.__name__, "FAILED", f"{type(error).__name__}: {error}"))
                print(f"{'':8}  FAILED  {check.__name__}: {error}", file=sys.stderr, flush=True)
    print("| check | verdict | |\n|---|---|---|")
    for name, verdict, figures in rows:
        print(f"| {name} | {verdict} | {' '.join(figures.split())} |")
    failed = sum(verdict == "FAILED" for _, verdict, _ in rows)
    below = sum(verdict == "below" for _, verdict, _ in rows)
    print(f"\n{len(rows) - failed - below} checks passed, {below} below their target, {failed} failed, "
          f"in {time.perf_counter() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        print(json.dumps(PEERS[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
