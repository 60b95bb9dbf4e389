#!/bin/bash
# Runs every fuzz target for a time: test/fuzz.sh 5s
set -euo pipefail
cd "$(dirname "$0")/.."

one() { go test -run '^$' -fuzz "^$2\$" -fuzztime "$3" "./$1"; }

for pkg in $(grep -rl --include='*_test.go' '^func Fuzz' pkg controlplane dataplane | xargs -n1 dirname | sort -u); do
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$pkg"/*_test.go | sed 's/func //'); do
    echo "$pkg $target"
    if out=$(one "$pkg" "$target" "$1" 2>&1); then
      tail -n 2 <<< "$out"
      continue
    fi
    echo "$out"
    # Where the time ends while a worker is in the middle of an input, Go reports that as a
    # failure, without an input that fails; what hangs or fails is reported with one.
    grep -q 'context deadline exceeded' <<< "$out" && ! grep -q 'Failing input' <<< "$out" || exit 1
    echo "the time was over before a worker was: once more"
    one "$pkg" "$target" "$1"
  done
done
