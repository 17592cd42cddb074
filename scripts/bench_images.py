#!/usr/bin/env python3
"""Images in and through a network against PyTorch with torchvision, side by side.

    scripts/bench_images.py BINARY [--repeats N] [--only NAME]

`make bench` calls it in an environment of its own. Figures are images a second on the same two or
more cores: of several pairs, ours and theirs one after the other, the medians, and the median and
the range of the ratios. The images are made under target/bench-images: 2,000 photographs of about
500 x 375 pixels (crops of those that scikit-image and scikit-learn ship, JPEG at quality 90; 640 for
resnet18's training, which takes long), and 10,000 PNG files of 28 x 28 (crops of Fashion-MNIST's sample
in data/).
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "target" / "bench-images"
PHOTOS, FEW, THUMBS = PLACE / "photos", PLACE / "few-photos", PLACE / "thumbs"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# What is measured: images.

def make_photos(into, count):
    import skimage
    import sklearn.datasets
    from PIL import Image

    folders = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]
    files = sorted(f for folder in folders for f in folder.iterdir() if f.suffix in (".png", ".jpg"))
    sources = []
    for file in files:
        with Image.open(file) as image:
            if image.mode == "RGB" and min(image.size) >= 300:
                sources.append(image.copy())
    rng = random.Random(0)
    for number in range(count):
        image = sources[number % len(sources)]
        width = rng.uniform(0.6, 1) * min(image.width, image.height * 4 / 3)
        left = rng.uniform(0, image.width - width)
        top = rng.uniform(0, image.height - width * 0.75)
        size = rng.choice([(480, 360), (500, 375), (500, 375), (500, 333), (512, 384)])
        box = (left, top, left + width, top + width * 0.75)
        folder = into / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        image.resize(size, Image.BICUBIC, box=box).save(folder / f"{number:05}.jpg", quality=90)


def make_thumbs(count=10000):
    from PIL import Image

    files = sorted((ROOT / "data" / "fashion-mnist").rglob("*.png"))
    rng = random.Random(0)
    for number in range(count):
        with Image.open(files[number % len(files)]) as image:
            left, top = rng.randrange(4), rng.randrange(4)
            view = image.resize((28, 28), box=(left, top, left + 24, top + 24))
        folder = THUMBS / f"{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        view.save(folder / f"{number:05}.png")


# Theirs: PyTorch, each in a process of its own.

def folder_loader(folder, size, scale, batch):
    import torch
    from torchvision import datasets, transforms

    views = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=scale),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ])
    data = datasets.ImageFolder(folder, views)
    return torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=CORES, drop_last=True)


def network(arch, size):
    import torchvision
    from torch import nn

    if arch == "resnet18":
        model = torchvision.models.resnet18()
        if size <= 64:
            model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        model.fc = nn.Identity()
        return model, 512
    layers = []
    for block in range(4):
        layers += [nn.Conv2d(64 if block else 3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)] if block < 3 else []
    return nn.Sequential(*layers, nn.Flatten()), 64 * (size // 8) ** 2


def worker_loader(folder, size):
    loader = folder_loader(folder, int(size), (0.08, 1.0), 64)
    speeds = []
    for _ in range(3):
        began, count = time.perf_counter(), 0
        for images, _ in loader:
            count += len(images)
        speeds.append(count / (time.perf_counter() - began))
    return speeds


def median_speed(step, batch):
    seconds = []
    for _ in range(15):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return batch / statistics.median(seconds[3:])


def worker_extract(arch, size, batch, mode):
    import torch

    torch.set_num_threads(CORES)
    size, batch = int(size), int(batch)
    model = network(arch, size)[0].eval()
    images = torch.rand(batch, 3, size, size)
    tuned = mode != "eager"
    if tuned:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    if mode == "compiled":
        model = torch.compile(model)

    def step():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            model(images)

    return median_speed(step, batch)


def pretrained_kind(arch):
    """A network that people take features from, with random weights."""
    import torchvision
    from torch import nn

    if arch == "mobilenet_v2":
        model = torchvision.models.mobilenet_v2()
        model.classifier = nn.Identity()
        return model
    import timm

    return timm.create_model(arch, num_classes=0, img_size=224)


def worker_features(arch, folder, mode):
    import torch
    from torchvision import datasets, transforms

    torch.set_num_threads(CORES)
    views = transforms.Compose([
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, DEVIATION),
    ])
    loader = torch.utils.data.DataLoader(datasets.ImageFolder(folder, views), 64, num_workers=CORES)
    model = pretrained_kind(arch).eval()
    tuned = mode != "eager"
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    if mode == "compiled":
        model = torch.compile(model)

    def features(images):
        if tuned:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            return model(images)

    features(torch.rand(64, 3, 224, 224))
    began, count = time.perf_counter(), 0
    for images, _ in loader:
        count += len(features(images))
    return count / (time.perf_counter() - began)


def worker_train(arch, size, folder, batch):
    import torch
    from torch import nn

    torch.set_num_threads(CORES)
    size, batch = int(size), int(batch)
    model, dim = network(arch, size)
    model = nn.Sequential(model, nn.Linear(dim, 100))
    optimiser = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-5)
    loader = folder_loader(folder, size, (0.3, 1.0), batch)
    began, count = time.perf_counter(), 0
    for _ in range(2):
        for images, classes in loader:
            loss = nn.functional.cross_entropy(model(images), classes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            count += len(images)
    return count / (time.perf_counter() - began)


def worker_assign(folder):
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(CORES)
    model = network("conv4", 28)[0].eval()
    centroids = torch.randn(100, 576)
    to_tensor = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])

    class Files(torch.utils.data.Dataset):
        def __init__(self):
            self.files = sorted(Path(folder).rglob("*.png"))

        def __len__(self):
            return len(self.files)

        def __getitem__(self, row):
            with Image.open(self.files[row]) as image:
                return to_tensor(image.convert("RGB")), str(self.files[row])

    with torch.no_grad():
        for images, paths in torch.utils.data.DataLoader(Files(), 512, num_workers=CORES):
            labels = torch.cdist(model(images), centroids).argmin(1)
            for path, label in zip(paths, labels.tolist()):
                print(json.dumps({"path": path, "label": label}))


WORKERS = {name[7:]: work for name, work in list(globals().items()) if name.startswith("worker_")}


def theirs(name, *args):
    command = [sys.executable, __file__, "--worker", name, *map(str, args)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# Ours.

def ours_loader(binary, folder, size):
    command = [binary, "inspect", folder, "--size", str(size), "--epochs", "3", "--augment", "-q"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [epoch["images_per_second"] for epoch in report["epochs"]]


def ours_network(work, arch, size, batch):
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "network", "--"]
    command += [work, arch, str(size), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def ours_features(binary, arch, folder, count):
    """The whole program, with its start and the writing of the features."""
    with tempfile.TemporaryDirectory() as place:
        command = [binary, "features", "--arch", arch, "--init", "none", "--size", "224", folder, "-q"]
        return count / seconds_of([*command, "-o", f"{place}/f.npy"])


def ours_train(binary, arch, size, folder, batch):
    """Two epochs of SGD on the pseudo-labels, with the reading of the files, without label steps."""
    with tempfile.TemporaryDirectory() as place:
        run = f"{place}/run"
        command = [binary, "train", folder, "--out", run, "--arch", arch, "--init", "none", "--size", str(size)]
        command += ["--epochs", "2", "--batch-size", str(batch), "-k", "100", "--profile", "-q"]
        subprocess.run(command, check=True)
        with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
            epochs = [record for record in map(json.loads, file) if record["kind"] == "epoch"]
    seconds = sum(e["seconds"]["train"] + e["profile"].get("decode", 0) for e in epochs)
    return epochs[-1]["images_seen"] / seconds


def seconds_of(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def row(name, pairs, goal):
    ratios = [ours / theirs for ours, theirs in pairs]
    ours, other = (statistics.median(side) for side in zip(*pairs))
    print(
        f"| {name} | {ours:,.0f} | {other:,.0f} | {statistics.median(ratios):.2f}x "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | {goal} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    for folder, count in [(PHOTOS, 2000), (FEW, 640)]:
        if not folder.exists():
            make_photos(folder, count)
    if not THUMBS.exists():
        make_thumbs()
    binary, turns = args.binary, range(args.repeats)
    print("| images/s | ours | theirs | ratio | at least |\n|---|---|---|---|---|", flush=True)
    wanted = lambda name: args.only in name  # noqa: E731

    if wanted("loader"):
        runs = [(ours_loader(binary, PHOTOS, 224), theirs("loader", PHOTOS, 224)) for _ in turns]
        row("first epoch, photographs to 224 px", [(a[0], b[0]) for a, b in runs], "3x")
        row("later epochs", [(a[2], b[2]) for a, b in runs], "10x")
    for arch, size, batch in [("conv4", 28, 512), ("resnet18", 64, 128)]:
        if wanted("extract"):
            name = f"extraction, {arch} {size} px"
            for mode, goal in [("eager", "2x"), ("tuned", "1x"), ("compiled", "1x")]:
                try:
                    pairs = [
                        (ours_network("extract", arch, size, batch), theirs("extract", arch, size, batch, mode))
                        for _ in turns
                    ]
                except subprocess.CalledProcessError as error:
                    print(f"{mode} does not work here: {error.stderr.splitlines()[-1]}", file=sys.stderr)
                    continue
                how = {"eager": "eager", "tuned": "channels_last, bf16", "compiled": "... and compiled"}[mode]
                row(f"{name}; {how}", pairs, goal)
    for arch, folder, count, goals in [
        ("mobilenet_v2", PHOTOS, 2000, {"eager": "3x", "tuned": "", "compiled": "1x"}),
        ("vit_small_patch14_dinov2", FEW, 640, {"eager": "1.2x", "tuned": ""}),
    ]:
        if wanted("features"):
            for mode, goal in goals.items():
                pairs = [
                    (ours_features(binary, arch, folder, count), theirs("features", arch, folder, mode))
                    for _ in turns
                ]
                how = {"eager": "eager", "tuned": "channels_last, bf16", "compiled": "... and compiled"}[mode]
                row(f"features from files, {arch} 224 px; {how}", pairs, goal)
    for arch, size, folder, batch in [("conv4", 28, THUMBS, 256), ("resnet18", 64, FEW, 128)]:
        if wanted("train"):
            pairs = [
                (ours_train(binary, arch, size, folder, batch), theirs("train", arch, size, folder, batch))
                for _ in turns
            ]
            row(f"training from files, {arch} {size} px", pairs, "2x")
    if wanted("assign"):
        with tempfile.TemporaryDirectory() as place:
            run = f"{place}/run"
            train = [binary, "train", THUMBS, "--out", run, "--epochs", "1", "-k", "100", "-q"]
            subprocess.run(train, check=True)
            script = [sys.executable, __file__, "--worker", "assign", THUMBS]
            pairs = [
                (10000 / seconds_of([binary, "assign", run, THUMBS]), 10000 / seconds_of(script))
                for _ in turns
            ]
            row("assign, 10,000 PNG files, with start-up", pairs, "3x")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        answer = WORKERS[sys.argv[2]](*sys.argv[3:])
        if answer is not None:
            print(json.dumps(answer))
    else:
        main()
