#!/usr/bin/env bash
# `make demo`: learn from a folder of images without their labels, label images that were
# not seen before, and show what came of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=${1:-data/fashion-mnist}
run=runs/demo
learned=runs/demo-learned
labels=$run-labels.jsonl
bin=target/release/ssl-cluster

step() {
  printf '\n$ %s\n' "$*" >&2
}
say() {
  printf '\n%s\n' "$*" >&2
}

mkdir -p runs
rm -rf "$run" "$learned"
say "Grouped as they are: by the features of a network that others have trained, where its weights were fetched."
step "$bin train $data/train --out $run"
"$bin" train "$data/train" --out "$run"
step "$bin assign $run $data/test > $labels"
"$bin" assign "$run" "$data/test" >"$labels"
step "$bin eval $run $data/test --train $data/train"
"$bin" eval "$run" "$data/test" --train "$data/train"

say "Learned from these images alone: DeepCluster, from random weights."
step "$bin train $data/train --method deepcluster --out $learned"
"$bin" train "$data/train" --method deepcluster --out "$learned"
step "$bin eval $learned $data/test --train $data/train"
"$bin" eval "$learned" "$data/test" --train "$data/train"

# The folders' names are the classes: training never looked at them, so that they show here
# how pure the clusters are.
python3 - "$labels" <<'PY'
import collections, json, sys

records = [json.loads(line) for line in open(sys.argv[1])]
clusters = collections.defaultdict(list)
for r in records:
    clusters[r["label"]].append(r["path"].rpartition("/")[0] or ".")

print(f"\n{len(records)} new images in {len(clusters)} clusters; the largest:")
for label, names in sorted(clusters.items(), key=lambda c: (-len(c[1]), c[0]))[:8]:
    name, count = collections.Counter(names).most_common(1)[0]
    share = 100 * count / len(names)
    print(f"  cluster {label:4}: {len(names):4} images, {share:3.0f} % of them {name}")
print("\nfive of them, as written:")
for r in records[:: max(1, len(records) // 5)][:5]:
    print("  " + json.dumps(r))
PY

cat <<END

labels of the new images   $labels
the run                    $run
report (open in a browser) $PWD/$run/report.html
what was learned           $PWD/$learned/report.html
END
