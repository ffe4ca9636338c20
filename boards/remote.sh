# The board's side of the SSH transport, in POSIX sh: tested with dash, bash and busybox.
#
#     sh remote.sh BASE VERB [ARGUMENT...]
#
#     BASE/files/SHA256        what was uploaded; SHA256.part while it comes
#     BASE/runs/NUMBER/        a connection: holder and child (process numbers), work/ (where programs run), governor (the
#                              governors before it)
#     /tmp/svitkit-lock/held/  who uses the board, whatever the account: owner, deadline (seconds since boot)
#
# SVITKIT_LOCK: another place for the lock, where accounts do not share /tmp. SVITKIT_ROOT: where files of the system are read.
# Both outputs begin with a line, so that what the login itself prints can be told apart; stderr ends with the status.
set -u
LC_ALL=C
export LC_ALL
umask 077
base=$1 verb=$2
shift 2
root=${SVITKIT_ROOT:-}
lock=${SVITKIT_LOCK:-/tmp/svitkit-lock}
exec 9>&2
printf 'svitkit-begin\n'
printf 'svitkit-begin\n' >&2
end() { printf '\nsvitkit-end %s\n' "$1" >&9; }
trap 'end $?' EXIT

# --- what the device is -----------------------------------------------------------------------------------------------

tell() { [ -z "$2" ] || printf '%s\t%s\n' "$1" "$2"; }

libc_version() {
  getconf GNU_LIBC_VERSION 2>/dev/null && return
  ldd --version 2>&1 | sed -n -e '/^musl/p' -e 's/^ldd .* \([0-9][0-9]*\.[0-9][0-9]*\)$/glibc \1/p' | grep . && return
  for file in /lib/libc.so.6 /lib/*/libc.so.6 /lib64/libc.so.6; do
    [ -x "$file" ] || continue
    "$file" 2>/dev/null | sed -n '1s/.*version \([0-9][0-9]*\.[0-9][0-9]*\).*/glibc \1/p' | grep . && return
  done
  for file in /lib/ld-musl-*; do [ -e "$file" ] && echo musl; done
}

page_size() {
  getconf PAGESIZE 2>/dev/null ||
    sed -n 's/^KernelPageSize: *\([0-9]*\) kB$/\1/p' /proc/self/smaps | head -n 1 | { read -r kib && echo $((kib * 1024)); }
}

word_bits() { # of programs, by the fifth byte of one: a kernel of 64 bits may run a system of 32
  case $(dd if=/proc/$$/exe bs=1 skip=4 count=1 2>/dev/null | od -An -tu1 | tr -d ' ') in 1) echo 32 ;; 2) echo 64 ;; esac
}

library() { # NAME: where it lies, for the loader or as NVIDIA's and other packages place it
  if [ -z "$root" ]; then
    { ldconfig -p || /sbin/ldconfig -p; } 2>/dev/null | sed -n "s|^[[:space:]]*$1 .*=> ||p" | head -n 1 | grep . && return
  fi
  for folder in "$root"/usr/lib/*/tegra "$root"/usr/lib/*/nvidia "$root"/usr/lib/* "$root/usr/lib" "$root/usr/lib64"; do
    [ -e "$folder/$1" ] && printf '%s\n' "${folder#"$root"}/$1" && return
  done
}

gpu_drivers() {
  echo looked
  for name in libcuda.so.1 libOpenCL.so.1 libOpenCL.so libmali.so.1 libmali.so; do library "$name"; done
}

cuda_toolkit() {
  cuda=$root/usr/local/cuda
  sed -n 's/.*"version"[^"]*"\([0-9.]*\)".*/\1/p' "$cuda/version.json" 2>/dev/null | head -n 1 | grep . && return
  sed -n 's/^CUDA Version \([0-9.]*\).*/\1/p' "$cuda/version.txt" 2>/dev/null
}

gpu_facts() {
  [ -r "$root/proc/device-tree/compatible" ] && tell compatible "$(tr '\000' ' ' <"$root/proc/device-tree/compatible")"
  tell l4t "$(sed -n 's/^# R\([0-9]*\)[^,]*, REVISION: \([0-9.]*\).*/\1.\2/p' "$root/etc/nv_tegra_release" 2>/dev/null)"
  tell cuda_toolkit "$(cuda_toolkit)"
  tell drivers "$(gpu_drivers | tr '\n' ' ')"
}

facts() {
  tell architecture "$(uname -m)"
  tell kernel "$(uname -r)"
  tell libc "$(libc_version | head -n 1)"
  tell page_size "$(page_size)"
  tell word_bits "$(word_bits)"
  tell cores "$(nproc 2>/dev/null || grep -c '^processor' "$root/proc/cpuinfo")"
  tell sha256sum "$(command -v sha256sum)"
  [ -r "$root/proc/device-tree/model" ] && tell model "$(tr -d '\000' <"$root/proc/device-tree/model")"
  grep -E '^(MemTotal|MemAvailable):' "$root/proc/meminfo" | tr ':' '\t'
  grep -E '^(Features|flags|model name|CPU implementer|CPU part)[[:space:]]*:' "$root/proc/cpuinfo" | sort -u |
    sed 's/[[:space:]]*:[[:space:]]*/	/'
  gpu_facts
  tell free_kib "$(free_kib)"
  return 0
}

free_kib() { df -Pk "$base" 2>/dev/null | { read -r _ && read -r _ _ _ free _ && printf '%s' "$free"; }; }

look() { # PATTERN...: the first line of every file that a pattern names, or that vcgencmd prints, as PATH<tab>LINE
  cd "$root/" || exit 1
  for pattern in "$@"; do
    case $pattern in sys/vcgencmd/*)
      tell "$pattern" "$(vcgencmd "${pattern##*/}" 2>/dev/null | head -n 1)"
      continue ;;
    esac
    for file in $pattern; do
      [ -r "$file" ] || continue
      line=
      { IFS= read -r line <"$file"; } 2>/dev/null
      tell "$file" "$line"
    done
  done
}

governor() { # RUN NAME: of every core, until restore, or until the connection ends
  for file in "$root"/sys/devices/system/cpu/cpufreq/policy*/scaling_governor; do
    [ -e "$file" ] || { echo "it has no cpufreq" >&2; exit 77; }
    read -r old <"$file" && printf '%s %s\n' "$old" "$file" >>"$1/governor"
    { printf '%s\n' "$2" >"$file"; } 2>/dev/null || { echo "$file may not be written, or has no such value" >&2; exit 77; }
  done
}

restore() { # RUN: sets the governors that were there before
  [ -f "$1/governor" ] || return 0
  while read -r old file; do printf '%s\n' "$old" >"$file"; done <"$1/governor" 2>/dev/null
  rm -f "$1/governor"
}

# --- the lock: a directory is made by one alone -----------------------------------------------------------------------

clock() {
  read -r up _ </proc/uptime
  up=${up%%.*}
}

is_number() { case $1 in '' | *[!0-9]* | ???????????*) return 1 ;; esac; }

read_lock() { # sets token pid booted since owner deadline; any account may have written them
  token='' pid='' booted='' since='' owner='somebody' deadline=0
  for _ in 1 2 3 4 5; do
    [ -d "$lock/held" ] && [ ! -f "$lock/held/deadline" ] && sleep 1
  done
  { { read -r token && read -r pid && read -r booted && read -r since && read -r owner; } <"$lock/held/owner"
    read -r deadline <"$lock/held/deadline"; } 2>/dev/null
  is_number "$pid" || pid=0
  is_number "$deadline" || deadline=0
  case $token in *[!A-Za-z0-9.]*) token='' ;; esac
}

is_stale() { # of another boot, of a process that is no more, or not renewed in time
  clock
  [ "$booted" != "$boot" ] && return 0
  [ -d /proc/1 ] && [ ! -d "/proc/$pid" ] && return 0
  [ "$up" -gt "$deadline" ]
}

drop_lock() { # TOKEN: removes that lock and no other
  mkdir "$lock/held/drop.$1" 2>/dev/null || return 1
  read_lock
  [ "$token" = "$1" ] || { rmdir "$lock/held/drop.$1"; return 1; }
  mv "$lock/held" "$lock/gone.$1.$$" && rm -rf "$lock/gone.$1.$$"
}

renew_lock() {
  clock
  echo "$((up + seconds))" >"$lock/held/deadline.$$" && chmod 644 "$lock/held/deadline.$$" &&
    mv -f "$lock/held/deadline.$$" "$lock/held/deadline"
}

take_lock() { # NAME
  mkdir "$lock" 2>/dev/null && chmod 777 "$lock" # every account takes it, and removes what is stale
  [ -d "$lock" ] && [ ! -h "$lock" ] && [ -w "$lock" ] || { echo "$lock is no directory to write into" >&2; exit 73; }
  if ! (umask 0 && mkdir "$lock/held") 2>/dev/null; then
    read_lock
    is_stale && drop_lock "$token" && take_lock "$1"
    return
  fi
  clock
  mine=$$.$up.${boot%%-*}
  printf '%s\n' "$mine" "$$" "$boot" "$(date +%s)" "$1" >"$lock/held/owner" && chmod 644 "$lock/held/owner"
  renew_lock
}

show_lock() { # busy<tab>OWNER<tab>SINCE<tab>SECONDS until it ends by itself
  clock
  printf 'busy\t%s\t%s\t%s\n' "$owner" "$since" "$((deadline - up))"
}

unlock() { # yes if a lock that is in use goes too
  [ -d "$lock/held" ] || { printf 'free\n'; return; }
  read_lock
  show_lock
  if is_stale; then drop_lock "$token" && printf 'stale\n'
  elif [ "$1" = yes ]; then
    is_holder "$pid" && kill "$pid"
    drop_lock "$token"
    printf 'forced\n'
  fi
}

is_holder() { tr '\000' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q 'remote[^ ]*\.sh .* hold '; }

# --- a connection: it holds the lock and a directory as long as its stdin brings lines --------------------------------

is_child_of() { [ "/proc/$2/cwd" -ef "$1/work" ]; }

clear_run() { # DIRECTORY
  case $1 in "$base"/runs/?*) ;; *) return ;; esac
  child=
  { read -r child <"$1/child"; } 2>/dev/null
  [ -n "$child" ] && is_child_of "$1" "$child" && kill -9 "$child"
  restore "$1"
  for _ in 1 2 3; do rm -rf "$1" 2>/dev/null && return; sleep 1; done
}

clear_dead_runs() {
  for old in "$base"/runs/*; do
    [ -d "$old" ] || continue
    holder=
    { read -r holder <"$old/holder"; } 2>/dev/null
    [ -n "$holder" ] && [ "/proc/$holder/cwd" -ef "$old" ] || clear_run "$old"
  done
}

bound_files() { # KIB: the files used longest ago go first
  kept=0
  cd "$base/files" || exit 73
  ls -lnt | while read -r _ _ _ _ size rest; do
    [ -n "$rest" ] || continue
    kept=$((kept + size / 1024 + 1))
    [ "$kept" -le "$1" ] || rm -f "${rest##* }"
  done
}

leave() {
  status=$?
  trap '' HUP INT TERM PIPE
  cd /
  [ -z "$watch" ] || kill "$watch" 2>/dev/null
  [ -z "$run" ] || clear_run "$run"
  [ -z "$mine" ] || drop_lock "$mine"
  end "$status"
}

hold() { # NAME WAIT SECONDS KIB: who, how long to wait for the lock, its life without a line, bound of the files
  seconds=$3 mine='' run='' watch='' waited=0
  facts
  trap 'exit 74' TERM
  trap 'exit 129' HUP INT PIPE
  trap leave EXIT
  until take_lock "$1"; do
    show_lock
    [ "$waited" -lt "$2" ] || exit 75
    sleep 1
    waited=$((waited + 1))
  done
  clear_dead_runs
  mkdir -p "$base/files" && bound_files "$4"
  run=$base/runs/$mine
  mkdir -p "$run/work" && cd "$run" && echo $$ >holder || exit 73
  guard $$ </dev/null >/dev/null 2>&1 9>/dev/null &
  watch=$!
  printf 'ready\t%s\n' "$run"
  while read -r _; do
    read_lock
    [ "$token" = "$mine" ] || exit 74
    renew_lock
  done
}

guard() { # PROCESS: ends it when no line came for too long, and clears up if something else ended it
  trap - HUP INT TERM PIPE EXIT
  cd /
  deadline=0
  while sleep $((seconds / 12 + 1)); do
    clock
    { read -r deadline <"$lock/held/deadline" && is_number "$deadline" || deadline=$up; } 2>/dev/null
    if [ ! "/proc/$1/cwd" -ef "$run" ]; then
      watch=''
      leave
      exit
    fi
    [ "$up" -le "$deadline" ] || kill "$1"
  done
}

# --- files ------------------------------------------------------------------------------------------------------------

size_of() { echo $(($(wc -c <"$1"))); }

place() { # RUN NAME; lines SHA256 PATH on stdin: links the files under work/NAME, or says which are missing
  list=$1/list target=$1/work/$2
  cat >"$list"
  cd "$base/files" || exit 73
  present=$(while read -r sha _; do [ -f "$sha" ] && printf '%s ' "$sha"; done <"$list")
  [ -z "$present" ] || sha256sum $present | while read -r sum name; do [ "$sum" = "$name" ] || rm -f "$name"; done
  missing=no
  while read -r sha path; do
    if [ -f "$sha" ]; then touch -c "$sha"; continue; fi
    missing=yes have=0
    [ -f "$sha.part" ] && have=$(size_of "$sha.part")
    printf 'missing\t%s\t%s\n' "$sha" "$have"
  done <"$list"
  tell free_kib "$(free_kib)"
  [ "$missing" = no ] || return 0
  rm -rf "$target"
  while read -r sha path; do
    file=$target
    [ "$path" = . ] || file=$target/$path
    mkdir -p "${file%/*}" && { ln "$sha" "$file" 2>/dev/null || cp "$sha" "$file"; } || exit 73
  done <"$list"
  printf 'placed\t%s\n' "$target"
}

put() { # SHA256 BYTES HAVE: what is missing of a file comes on stdin
  part=$base/files/$1.part have=0
  [ -f "$part" ] && have=$(size_of "$part")
  [ "$have" -eq "$3" ] || { echo "another client writes the same file" >&2; exit 75; }
  cat >>"$part" || { rm -f "$part"; exit 73; }
  have=$(size_of "$part")
  [ "$have" -ge "$2" ] || { echo "got $have of $2 bytes" >&2; exit 74; }
  sum=$(sha256sum <"$part")
  [ "${sum%% *}" = "$1" ] || { rm -f "$part"; echo "the file arrived damaged" >&2; exit 76; }
  chmod 500 "$part" && mv "$part" "$base/files/$1"
}

pull() { # FILE
  [ -f "$1" ] || exit 66
  cat "$1"
}

clean() { # kept_kib<tab>KIB: what was removed
  clear_dead_runs
  [ ! -d "$base/files" ] || tell kept_kib "$(du -sk "$base/files" | cut -f 1)"
  rm -rf "$base/files"
}

# --- programs: one that stays when the connection is gone would disturb the next measurement --------------------------

run() { # RUN PROGRAM [ARGUMENT...]
  run=$1
  shift
  cd "$run/work" || exit 73
  trap - EXIT # a child of bash would run it, too
  exec 3<&0
  "$@" </dev/null 3<&- 9>&- &
  child=$!
  echo "$child" >"$run/child"
  exec 2>/dev/null
  { cat <&3; kill -9 "$child"; } >/dev/null 9>&- &
  exec 3<&-
  wait "$child"
  status=$?
  kill $!
  rm -f "$run/child"
  end "$status"
  exit "$status"
}

read -r boot </proc/sys/kernel/random/boot_id
"$verb" "$@"
