# shellcheck shell=bash
# Real Docker, real systemd and emulated machines for the stories beside this file. To be sourced by a script that runs as root.
# Everything that is kept lies below .ci/work; sockets lie below a short folder of their own, because a Unix socket's path is
# limited to 107 bytes. `real_down` leaves the machine's network and control groups as they were.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$root/.ci/work
# shellcheck disable=SC2034  # for the stories
bin=${NEXUSHUB_BIN_DIR:-${CARGO_TARGET_DIR:-$root/target}/release}
patience=${NEXUSHUB_PATIENCE:-1}
run=''
sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || sources=/etc/apt/sources.list

say() { printf -- '-- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# Waits until a command succeeds, for at most some seconds (times NEXUSHUB_PATIENCE); says what never came true.
until_true() { # seconds, what, command...
  local end=$((SECONDS + $1 * patience)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "never came true: $what"
    sleep 0.05
  done
}

equal() { # what, expected, actual
  [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

# Something that only computes joins a box's group: the bound on processor time holds it back, which status tells.
is_held_back() { # the group's folder, command that tells the status of an app...
  local folder=$1 busy
  shift
  (
    echo 0 >"$folder/cgroup.procs" # of this shell
    while :; do :; done
  ) &
  busy=$!
  until_true 60 'how long it was held back is told' tells_held_back "$@"
  kill -KILL "$busy"
  wait "$busy" 2>/dev/null || true
}
tells_held_back() { "$@" boxed | grep -E 'held it back for ([1-9][0-9]*\.|0\.[1-9])'; }

apt_quiet() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"; }

# ---------------------------------------------------------------- Docker

# Asking for every capability by list fails where CAP_SYS_RESOURCE is missing from root's bounding set, and that is what
# `--privileged` does. This runtime asks for the same list without it.
runtime_for_bounded_root() {
  cat >"$run/runc-bounded" <<'W'
#!/bin/sh
without() { [ ! -f "$1" ] || { text=$(sed 's/,"CAP_SYS_RESOURCE"//g; s/"CAP_SYS_RESOURCE",//g' "$1") && printf '%s' "$text" >"$1"; }; }
before=
for word in "$@"; do
  case $before in
    --bundle | -b) without "$word/config.json" ;;
    --process | -p) without "$word" ;;
  esac
  before=$word
done
exec runc "$@"
W
  chmod 755 "$run/runc-bounded"
}

has_sys_resource() { (($(printf '%d' "0x$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)") >> 24 & 1)); }

# Uses the Docker that answers already; else starts one of its own, which ends with the story.
docker_up() {
  mkdir -p "$work"
  run=$(mktemp -d /tmp/nxh.XXXXXX)
  trap real_down EXIT
  ! docker version >/dev/null 2>&1 || return 0
  export DOCKER_HOST=unix://$run/docker.sock
  local runtime=()
  if ! has_sys_resource; then
    runtime_for_bounded_root
    runtime=(--add-runtime "bounded=$run/runc-bounded" --default-runtime bounded)
  fi
  forward=$(cat /proc/sys/net/ipv4/ip_forward)
  setsid dockerd --data-root "$work/docker" --exec-root "$run/exec" --pidfile "$run/docker.pid" -H "$DOCKER_HOST" \
    "${runtime[@]}" >"$work/dockerd.log" 2>&1 </dev/null &
  dockerd=$!
  until_true 60 "dockerd answers (see $work/dockerd.log)" dockerd_answers_or_died
  docker version >/dev/null || fail "dockerd did not start: $(tail -5 "$work/dockerd.log")"
}

dockerd_answers_or_died() { docker version || ! kill -0 "$dockerd"; }

real_down() {
  local code=$?
  trap - EXIT
  set +e
  docker ps -aq --filter label=nexushub-test | xargs -r docker rm -f -v >/dev/null
  if [ -n "${dockerd:-}" ]; then
    docker ps -aq | xargs -r docker rm -f -v >/dev/null
    docker network prune -f >/dev/null
    docker image prune -f >/dev/null
    kill "$dockerd" && wait "$dockerd"
    network_as_before 2>/dev/null
  fi
  rm -rf "$run"
  exit "$code"
}

# dockerd leaves its chains, its bridge, a mount and empty control groups. Only its own go; nothing is flushed.
network_as_before() {
  local table
  for table in filter nat; do
    iptables-save -t "$table" | grep -vE 'DOCKER|docker0' | sed 's/^:FORWARD DROP/:FORWARD ACCEPT/' |
      iptables-restore -T "$table"
  done
  ip link del docker0
  umount "$run/exec/netns/default"
  find /sys/fs/cgroup/*/docker -depth -type d -exec rmdir {} +
  echo "$forward" >/proc/sys/net/ipv4/ip_forward
}

# Debian 12 has no compose v2; the next release's plug-in is one program that runs here as it is.
compose_plugin() {
  ! docker compose version >/dev/null 2>&1 || return 0
  export DOCKER_CONFIG=$work/docker-cli
  local plugins=$DOCKER_CONFIG/cli-plugins next=$work/next-release
  [ ! -x "$plugins/docker-compose" ] || return 0
  mkdir -p "$plugins" "$next"/lists/partial "$next"/cache/archives/partial "$next/unpacked"
  local list=$next/next.${sources##*.}
  sed -E 's/bookworm/trixie/g' "$sources" >"$list"
  local from=(-o "Dir::Etc::sourcelist=$list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$next/lists" -o "Dir::Cache=$next/cache" -o APT::Sandbox::User=root)
  apt_quiet "${from[@]}" update
  (cd "$next" && apt_quiet "${from[@]}" download docker-compose)
  dpkg-deb -x "$next"/docker-compose_*.deb "$next/unpacked"
  install -m 755 "$next/unpacked/usr/libexec/docker/cli-plugins/docker-compose" "$plugins/docker-compose"
  rm -rf "$next"
}

# ---------------------------------------------------------------- systemd

packages=systemd,systemd-sysv,dbus,procps,curl,python3-minimal,uidmap
rootfs_tar=$work/rootfs-$(printf '%s' "$packages" | cksum | cut -d' ' -f1).tar
systemd_image=nexushub-test/$(basename "$rootfs_tar" .tar)

# A Debian 12 that boots, as a tar; made once.
rootfs() {
  [ ! -f "$rootfs_tar" ] || return 0
  mkdir -p "$work"
  mmdebstrap --quiet --variant=minbase "--include=$packages" --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "${rootfs_tar%.tar}.new.tar" "$sources" # it goes by the ending
  mv "${rootfs_tar%.tar}.new.tar" "$rootfs_tar"
}

image_systemd() {
  docker image inspect "$systemd_image" >/dev/null 2>&1 || docker import "$rootfs_tar" "$systemd_image" >/dev/null
  # Control groups: v1 hierarchies are made writable in place (the host's own, mounted in, systemd would rearrange), or replaced
  # by a cgroup2 mount. Credentials need shared mounts, which systemd does not make when it finds itself in a container. No
  # terminal logins: getty finds the privileged container's tty and fails on it now and then.
  cat >"$run/boot" <<'B'
#!/bin/sh
if [ "$CGROUPS" = v2 ]; then
  umount -R /sys/fs/cgroup
  mount -t cgroup2 -o rw,nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
else
  for hierarchy in /sys/fs/cgroup/*; do ! mountpoint -q "$hierarchy" || mount -o remount,bind,rw "$hierarchy"; done
fi
mount --make-rshared /
ln -sf /dev/null /etc/systemd/system/getty.target
ln -sf /dev/null /etc/systemd/system/console-getty.service
exec /sbin/init
B
  chmod 755 "$run/boot"
}

# Boots systemd as process 1 of a new container.
systemd_up() { # name, v1|v2, further arguments of docker run
  local name=$1 groups=$2
  shift 2
  docker run -d --name "$name" --label nexushub-test -e container=docker -e "CGROUPS=$groups" --privileged --cgroupns private --memory 1g \
    --stop-signal SIGRTMIN+3 --tmpfs /run --tmpfs /run/lock --tmpfs /tmp -v "$run/boot:/boot-systemd:ro" "$@" \
    "$systemd_image" /boot-systemd >/dev/null
  until_true 60 "systemd runs in $name" booted "$name"
}

# Degraded is a unit of Debian's that a container can't have; what the platform's own come to is asked by who starts them.
booted() { docker exec "$1" systemctl is-system-running | grep -qE '^(running|degraded)$'; } # name

# ---------------------------------------------------------------- an emulated machine: Debian's own kernel, a root in memory, no rights

# Debian's kernel, unpacked into $kernel; fetched once.
kernel() {
  local package kept=$work/kernel
  package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
  if [ ! -d "$kept/$package" ]; then
    mkdir -p "$kept/new"
    (cd "$kept/new" && apt_quiet -o APT::Sandbox::User=root download "$package" && dpkg -x "$package"_*.deb .)
    rm -f "$kept"/new/*.deb
    mv "$kept/new" "$kept/$package"
  fi
  kernel=$kept/$package
}

# The program that ends such a machine: 0 = it went well.
verdict() { # where
  cc -O2 -static -Wall -Wextra -Werror -o "$1" "$root/tests/real/microvm/tools.c"
}

# Boots a root and waits for its verdict, which is QEMU's exit code: 33. What the machine says goes to standard output.
# Its clock ticks always: where it is only wound up when needed, an interrupt that QEMU loses while the machine runs one of its
# own stops the machine for ever.
boot() { # root, MiB of memory, processors
  local code=0 version
  version=$(ls "$kernel/lib/modules")
  (cd "$1" && find . | cpio -o -H newc --quiet -R 0:0) >"$run/initrd"
  timeout -k 5 $((900 * patience)) qemu-system-x86_64 -M q35,accel=tcg,sata=off,usb=off,i8042=off -cpu EPYC,+svm,+npt \
    -m "$2" -smp "$3" -nodefaults -no-user-config -display none -no-reboot -serial stdio \
    -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$kernel/boot/vmlinuz-$version" -initrd "$run/initrd" \
    -append 'console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check nohz=off highres=off random.trust_cpu=on' \
    </dev/null 2>"$run/qemu.log" | sed -u "s/\r\$//" || code=${PIPESTATUS[0]}
  [ "$code" = 33 ] || fail "the machine ended with $code: $(tail -3 "$run/qemu.log")"
}
