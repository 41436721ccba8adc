# What the image's entrypoint does as a user other than root, with its server's port and socket elsewhere.
set -eu
# Options alone are those of the server; anything else is another program, which it becomes.
case ${1:-} in
-*) ;;
postgres) shift ;;
*) exec "$@" ;;
esac

# A variable, or what is in the file that another one names.
value() {
  local plain=$1 file=$1_FILE
  if [ -n "${!plain:-}" ] && [ -n "${!file:-}" ]; then
    echo "both $1 and $1_FILE are set" >&2
    exit 1
  fi
  if [ -n "${!file:-}" ]; then cat "${!file}"; else printf '%s' "${!plain:-$2}"; fi
}
password=$(value POSTGRES_PASSWORD '')
user=$(value POSTGRES_USER postgres)
database=$(value POSTGRES_DB "$user")
options=$(value POSTGRES_INITDB_ARGS '')

mkdir -p "$PGDATA"
chmod 700 "$PGDATA" || true
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "$password" ]; then
    echo "Error: Database is uninitialized and superuser password is not specified." >&2
    exit 1
  fi
  eval 'initdb --no-sync --username="$user" --pwfile=<(printf "%s\n" "$password") '"$options"
  method=$(postgres -C password_encryption "$@")
  printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
  export PGPASSWORD=$password
  own=("$@" -c listen_addresses= -c "port=$PGPORT")
  pg_ctl --wait start -o "$(printf '%q ' "${own[@]}")"
  query() {
    PGHOST=$SOCKETS psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$user" --dbname postgres --set db="$database" -At
  }
  if [ -z "$(query <<<"SELECT 1 FROM pg_database WHERE datname = :'db'")" ]; then
    query <<<'CREATE DATABASE :"db"'
  fi
  pg_ctl --wait --mode=fast stop
  unset PGPASSWORD
fi
exec postgres "$@" -c listen_addresses=127.0.0.1 -c "port=$PGPORT"
