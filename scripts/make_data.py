#!/usr/bin/env python3
"""Write Fashion-MNIST as PNG files in one folder for each class.

  make_data.py sample    the small sample that the repository carries
                         (data/fashion-mnist: 200 training and 50 test images a class)
  make_data.py full      all 70,000 images (data/full/train and data/full/test)

The four idx files come from the directory named by --source or FASHION_MNIST, else
from Debian's package dataset-fashion-mnist. Only Python's standard library is used.
"""

import argparse
import gzip
import os
import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HOW_TO_GET = (
    "install Debian's package dataset-fashion-mnist, "
    "or set FASHION_MNIST to a directory with the four idx.gz files"
)
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]  # fmt: skip
SPLITS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
SAMPLE = {"train": 200, "test": 50}


class Problem(Exception):
    """Something the user can cure; shown as one line."""


def source_dir(given):
    """The directory that holds the idx files, or None where there is none."""
    given = given or os.environ.get("FASHION_MNIST")
    for directory in [Path(given)] if given else [DEBIAN]:
        if idx_path(directory, "train", "images", 3).exists():
            return directory
    if given:
        raise Problem(f"{given} has no train-images-idx3-ubyte.gz; {HOW_TO_GET}")
    return None


def idx_path(directory, prefix, kind, dims):
    packed = directory / f"{prefix}-{kind}-idx{dims}-ubyte.gz"
    plain = packed.with_suffix("")
    return plain if plain.exists() and not packed.exists() else packed


def read_idx(path, dims):
    """The shape and the bytes of an idx file of unsigned bytes."""
    try:
        data = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
    except (OSError, EOFError, zlib.error) as e:
        raise Problem(f"cannot read {path}: {e}; {HOW_TO_GET}") from None
    head = 4 + 4 * dims
    if len(data) < head or data[:4] != bytes([0, 0, 8, dims]):
        raise Problem(f"{path} is not an idx file of {dims}-dimensional bytes; {HOW_TO_GET}")
    shape = struct.unpack(f">{dims}I", data[4:head])
    size = 1
    for n in shape:
        size *= n
    if len(data) - head != size:
        raise Problem(f"{path} holds {len(data) - head} bytes instead of {size}; {HOW_TO_GET}")
    return shape, data[head:]


def png(pixels, height, width):
    """An 8-bit grey PNG. Written by hand so that no imaging package is needed."""

    def chunk(kind, body):
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    # Row filter 0 throughout: on 28x28 images the others save nothing worth having.
    rows = b"".join(b"\0" + pixels[y * width : (y + 1) * width] for y in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def write_split(source, split, target, limit):
    """Write the first `limit` images of each class (all where it is None)."""
    prefix, expected = SPLITS[split]
    (count, height, width), pixels = read_idx(idx_path(source, prefix, "images", 3), 3)
    (labels_count,), labels = read_idx(idx_path(source, prefix, "labels", 1), 1)
    if (count, labels_count) != (expected, expected):
        raise Problem(
            f"{source} has {count} images and {labels_count} labels in '{prefix}' "
            f"instead of {expected}; {HOW_TO_GET}"
        )
    for name in CLASSES:
        (target / name).mkdir(parents=True)
    written = [0] * len(CLASSES)
    size = height * width
    for i, label in enumerate(labels):
        number = written[label]
        if limit is not None and number >= limit:
            continue
        image = png(pixels[i * size : (i + 1) * size], height, width)
        # One call for each file: pathlib and buffering would double the time of 70,000.
        with open(f"{target}/{CLASSES[label]}/{number:04}.png", "wb", buffering=0) as f:
            f.write(image)
        written[label] = number + 1
    return sum(written)


def put_in_place(new, old):
    """Rename `new` to `old`; an earlier one gives way only once the new one is complete."""
    if old.exists():
        aside = new.with_name(new.name + ".old")
        old.rename(aside)
        new.rename(old)
        shutil.rmtree(aside)
    else:
        new.rename(old)


def make(source, out, limits):
    out.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as tmp:
        counts = {}
        for split, limit in limits.items():
            (Path(tmp) / split).mkdir()
            counts[split] = write_split(source, split, Path(tmp) / split, limit)
        for split in limits:
            put_in_place(Path(tmp) / split, out / split)
    print(f"{out}: " + ", ".join(f"{n} {split} images" for split, n in counts.items()))


def complete(out):
    """Whether the full set is there: split folders only ever appear whole."""
    return all((out / split / CLASSES[-1]).is_dir() for split in SPLITS)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["sample", "full"])
    parser.add_argument("--source", metavar="DIR", help="directory with the four idx.gz files")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where to write")
    parser.add_argument("--force", action="store_true", help="write 'full' again if it is there")
    args = parser.parse_args()

    if args.what == "full":
        out = args.out or ROOT / "data" / "full"
        if complete(out) and not args.force:
            print(f"{out}: already there (--force writes it again)")
            return 0
        source = source_dir(args.source)
        if source is None:
            print(f"full Fashion-MNIST skipped: {HOW_TO_GET}")
            return 0
        make(source, out, {split: None for split in SPLITS})
    else:
        source = source_dir(args.source)
        if source is None:
            raise Problem(f"no Fashion-MNIST files here: {HOW_TO_GET}")
        make(source, args.out or ROOT / "data" / "fashion-mnist", SAMPLE)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Problem, OSError) as e:
        sys.exit(f"make_data.py: {e}")
    except KeyboardInterrupt:
        sys.exit("make_data.py: interrupted; nothing half made is left")
