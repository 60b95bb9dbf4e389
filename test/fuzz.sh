#!/bin/bash
# Runs every fuzz target for a time: test/fuzz.sh 5s
# A package's binary is built once for all its targets: linking takes as long as some fuzzing.
# An input is made smaller by few tries only: by default Go spends up to a minute on each new
# one, which is all the time there is here.
set -euo pipefail
cd "$(dirname "$0")/.."
module=$(go list -m)
cache=$(go env GOCACHE)/fuzz
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# one PACKAGE TARGET TIME, in the package's folder, where an input that fails is kept.
one() { (cd "$1" && "$bin/fuzz" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$3" -test.fuzzminimizetime 10x -test.fuzzcachedir "$cache/$module/$1" -test.timeout 10m); }

for pkg in $(grep -rl --include='*_test.go' '^func Fuzz' pkg controlplane dataplane | xargs -n1 dirname | sort -u); do
  go test -c -fuzz=Fuzz -o "$bin/fuzz" "./$pkg"
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
