# Sourced by ./test and ./quickstart: finds what they need on this machine, and installs what is missing on Debian and Ubuntu.
# shellcheck shell=bash
# One that cannot be had here ends the script with 6, the exit code of shareddb itself for something missing.

exec </dev/null                       # nothing here asks anything; sudo asks on the terminal itself
export LC_ALL=C.UTF-8
unset LANGUAGE CDPATH
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"

# No server or environment that this shell happens to point at has any part in what follows.
while read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(PG[A-Z]+|DB_.*|DATABASE_.*|SHAREDDB_.*|SERVICE_BINDING_ROOT|KUBECONFIG)$' | grep -vx SHAREDDB_PG_BIN)

missing() { printf '%s\n' "$@" >&2; exit 6; }
took() { printf '%d min %02d s' $((SECONDS / 60)) $((SECONDS % 60)); }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }   # at_least WANTED FOUND
is_root() { [ "$(id -u)" = 0 ]; }

# As the local environment looks for it: one directory with every program, of 14 or newer.
has_postgres_programs() {
  local program version
  for program in postgres initdb pg_ctl pg_dump pg_restore psql; do [ -x "$1/$program" ] || return 1; done
  read -r _ _ version _ < <("$1/pg_ctl" --version 2>/dev/null) && at_least 14 "$version"
}
has_postgres() {
  if is_root && ! id -u postgres >/dev/null 2>&1; then return 1; fi   # servers refuse root; the package brings the user
  if [ -n "${SHAREDDB_PG_BIN:-}" ]; then has_postgres_programs "$SHAREDDB_PG_BIN"; return; fi
  local dir
  for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin "$(dirname -- "$(type -P postgres || echo /nowhere/postgres)")"; do
    if has_postgres_programs "$dir"; then return 0; fi
  done
  return 1
}
has_c_compiler() {
  local out rc=0
  out=$(mktemp)
  printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' | cc -x c -o "$out" - >/dev/null 2>&1 || rc=1
  rm -f "$out"
  return $rc
}
has_authorities() {
  local file
  for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -s "$file" ]; then return 0; fi
  done
  return 1
}

has_package() {
  case $1 in
    python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
    pgbouncer) [ -x /usr/sbin/pgbouncer ] || type -P pgbouncer >/dev/null ;;   # sbin is not on everybody's PATH
    *) type -P "$1" >/dev/null ;;
  esac
}

# lacking PACKAGE…: the packages still needed, these and those that are always needed.
lacking() {
  has_postgres || echo postgresql
  has_c_compiler || printf '%s\n' gcc libc6-dev
  has_authorities || echo ca-certificates
  local package
  for package; do has_package "$package" || echo "$package"; done
}

# need_packages PACKAGE…
need_packages() {
  local packages as_root=() line log
  mapfile -t packages < <(lacking "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ -n "${SHAREDDB_PG_BIN:-}" ] && ! has_postgres_programs "$SHAREDDB_PG_BIN"; then
    missing "SHAREDDB_PG_BIN=$SHAREDDB_PG_BIN does not hold all of postgres, initdb, pg_ctl, pg_dump, pg_restore, psql of 14 or newer."
  fi
  line="apt-get install -y --no-install-recommends ${packages[*]}"
  type -P apt-get >/dev/null || missing "Missing here: ${packages[*]} (names as in Debian). Install them with this system's package manager and run $0 again."
  if ! is_root; then
    # sudo that would ask for a password needs a terminal to ask on.
    if ! type -P sudo >/dev/null || { ! sudo -n true 2>/dev/null && ! { : >/dev/tty; } 2>/dev/null; }; then
      missing "Missing here: ${packages[*]}. This needs root, and there is no sudo that works. As root:" "    apt-get update && $line" "Then run $0 again."
    fi
    as_root=(sudo)
  fi
  echo "Missing here: ${packages[*]}. Running:"
  # Only the programs are wanted: a package installed for us shall not start a server of its own on port 5432.
  local dir=/etc/postgresql-common
  if [[ " ${packages[*]} " == *" postgresql "* && ! -e $dir/createcluster.conf ]]; then
    echo "    echo 'create_main_cluster = false' > $dir/createcluster.d/shareddb.conf     (the package then makes no server of its own)"
    "${as_root[@]}" mkdir -p "$dir/createcluster.d"
    echo 'create_main_cluster = false' | "${as_root[@]}" tee "$dir/createcluster.d/shareddb.conf" >/dev/null
  fi
  # Nor shall PgBouncer on 6432. Whoever has a policy for services already keeps it.
  local policy=
  if [[ " ${packages[*]} " == *" pgbouncer "* && ! -e /usr/sbin/policy-rc.d ]]; then
    policy=/usr/sbin/policy-rc.d
    echo "    printf '#!/bin/sh\nexit 101\n' > $policy && chmod +x $policy     (until the packages are there: none starts a service)"
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
  fi
  echo "    ${as_root[*]}${as_root:+ }apt-get update"
  echo "    ${as_root[*]}${as_root:+ }$line"
  log=$(mktemp)
  # shellcheck disable=SC2086 # the line is the command, as shown
  if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 ${line#apt-get }; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2; rm -f "$log"
    [ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
    missing "apt-get failed."
  fi
  [ -z "$policy" ] || "${as_root[@]}" rm -f "$policy"
  rm -f "$log"
  hash -r
  mapfile -t packages < <(lacking "$@")
  [ ${#packages[@]} = 0 ] || missing "Installed, but what these packages should bring is still not found: ${packages[*]}"
}

rust_version() { { rustc --version 2>/dev/null || true; } | awk '{ sub(/-.*/, "", $2); print $2 }'; }

# need_rust COMPONENT…: the toolchain that Cargo.toml asks for, from PATH or from where rustup puts it.
need_rust() {
  local wanted found component lacking=()
  wanted=$(sed -n 's/^rust-version *= *"\(.*\)".*/\1/p' Cargo.toml)
  found=$(rust_version)
  if ! { [ -n "$found" ] && at_least "$wanted" "$found" && type -P cargo >/dev/null; }; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    hash -r
    found=$(rust_version)
  fi
  if ! { [ -n "$found" ] && at_least "$wanted" "$found" && type -P cargo >/dev/null; }; then
    echo "Rust $wanted or newer is needed; found here: ${found:-none}. From rustup:" >&2
    type -P rustup >/dev/null && missing "    rustup update stable && rustup default stable" "Then run $0 again."
    type -P curl >/dev/null || echo "    apt-get update && apt-get install -y curl ca-certificates     (as root)" >&2
    echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    if is_root && [ -n "${SUDO_USER:-}" ]; then echo "Rust of the user $SUDO_USER is not seen through sudo: run $0 as that user, it calls sudo where it must." >&2; fi
    missing "Then run $0 again."
  fi
  for component; do cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || lacking+=("$component"); done
  [ ${#lacking[@]} = 0 ] || missing "This Rust has no ${lacking[*]}:" "    rustup component add ${lacking[*]}" "Then run $0 again."
}

# As root, servers run as user postgres, who must get at the folder for temporary files.
need_reachable_tmpdir() {
  is_root && [ -n "${TMPDIR:-}" ] || return 0
  runuser -u postgres -- test -x "$TMPDIR" 2>/dev/null && return 0
  echo "TMPDIR=$TMPDIR cannot be entered by user postgres: using /tmp"
  export TMPDIR=/tmp
}
