# shellcheck shell=bash
# A Debian 12 with systemd and cgroup v2 as a virtual machine, for soaks: what a cloud gives where a host image is made. Nothing is
# mounted on this machine, and no loop device is used.
#
#   mmdebstrap ─▶ directory ─▶ (packer/host/provision, in it) ─▶ mke2fs -d ─▶ qcow2 ─▶ QEMU: the kernel and an initrd of four modules, ssh
#
# guest_* work on $guest, a directory of the caller's: root/, root.qcow2, vmlinuz, initrd.cpio, key, console, pid, port.

: "${guest:?a directory for the guest}"
guest_cache=${NAVVY_GUEST_CACHE:-/var/cache/navvy-host}
guest_packages=(
  ca-certificates dbus iproute2 kmod linux-image-cloud-amd64 openssh-server procps systemd systemd-resolved systemd-sysv udev
)
# What the mirror asks for on this machine, a proxy's certificate for example, it asks for in the guest.
guest_certificates() { compgen -G '/usr/local/share/ca-certificates/*.crt' || true; }

guest_sources() {
  # shellcheck disable=SC2016  # apt's own placeholders
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -E ' bookworm(-updates|-security)? ' | sort -u || true
}

# guest_debian DIR: a bare Debian with a kernel and an ssh server in DIR. Made once a day, then kept.
guest_debian() {
  local key tree lines tar
  mapfile -t lines < <(guest_sources)
  key=$({ declare -f guest_debian; date +%F; printf '%s\n' "${lines[@]}" "${guest_packages[@]}"; } | sha256sum | cut -c1-12)
  tar=$guest_cache/debian-$key.tar.zst
  if [[ ! -e $tar ]]; then
    mkdir -p "$guest_cache"
    tree=$(mktemp -d "$guest_cache/.making.XXXXXX")
    # update-initramfs would take half a minute for an initrd that nobody starts.
    # shellcheck disable=SC2016  # $1 is the new system's root, filled in by mmdebstrap
    mmdebstrap --quiet --mode=root --variant=apt --include="$(IFS=,; echo "${guest_packages[*]}")" \
      --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*/*' \
      --setup-hook='mkdir -p "$1/usr/local/sbin"; ln -s /bin/true "$1/usr/local/sbin/update-initramfs"' \
      --customize-hook='rm "$1/usr/local/sbin/update-initramfs"' \
      bookworm "$tree/root" "${lines[@]}" </dev/null || { rm -rf "$tree"; die "failed to make a Debian with mmdebstrap"; }
    rm -f "$guest_cache"/debian-*.tar.zst
    tar -C "$tree/root" --one-file-system -c . | zstd -q -T2 -3 -o "$tree/tar"
    mv "$tree/tar" "$tar"
    rm -rf "$tree"
  fi
  mkdir -p "$1"
  tar -C "$1" --zstd -xpf "$tar"
}

# guest_settle DIR: what a cloud's image has and mmdebstrap does not: an address (QEMU's own network; closed off, it names no
# router, and Nomad asks for one), a name, a way in for $guest/key.
guest_settle() {
  local root=$1 file
  [[ -e $guest/key ]] || ssh-keygen -q -t ed25519 -N '' -C soak -f "$guest/key"
  install -D -m 0600 "$guest/key.pub" "$root/root/.ssh/authorized_keys"
  printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nDNS=10.0.2.3\n' >"$root/etc/systemd/network/20-wired.network"
  ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
  ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
  echo client >"$root/etc/hostname"
  printf '127.0.0.1 localhost client\n' >"$root/etc/hosts"
  for file in $(guest_certificates); do install -m 0644 "$file" "$root/usr/local/share/ca-certificates/"; done
}

# guest_enter DIR COMMAND...: runs it in there, with what programs expect, and without starting services.
# shellcheck disable=SC2016  # for the inner shell
guest_enter() (
  root=$1
  shift
  unshare --mount --pid --fork --kill-child bash -euc '
    root=$1; shift
    mount -t proc proc "$root/proc"; mount -t sysfs -o ro sysfs "$root/sys"; mount --rbind /dev "$root/dev"
    # A link into what only runs there is of no use here.
    [[ ! -L $root/etc/resolv.conf ]] || { mkdir -p "$root/run/systemd/resolve"; cp /etc/resolv.conf "$root/run/systemd/resolve/stub-resolv.conf"; }
    printf "#!/bin/sh\nexit 101\n" >"$root/usr/sbin/policy-rc.d"; chmod 755 "$root/usr/sbin/policy-rc.d"
    ln -sf /bin/true "$root/usr/local/sbin/update-initramfs"
    status=0; env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot "$root" "$@" || status=$?
    rm -f "$root/usr/sbin/policy-rc.d" "$root/usr/local/sbin/update-initramfs"; rm -rf "$root/run/systemd/resolve"
    exit $status' _ "$root" "$@" </dev/null
)

# guest_boot_files DIR: the kernel, and an initrd that finds the root and goes on with systemd.
guest_boot_files() {
  local root=$1 kernel version tree module number=100
  kernel=$(compgen -G "$root/boot/vmlinuz-*" | sort -V | tail -n 1)
  version=${kernel##*/vmlinuz-}
  cp "$kernel" "$guest/vmlinuz"
  tree=$(mktemp -d)
  mkdir -p "$tree"/{bin,dev,proc,modules,root}
  cp /bin/busybox "$tree/bin/busybox"
  for module in virtio_pci virtio_blk; do
    chroot "$root" modprobe --set-version "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
  done | awk '!seen[$0]++' | while read -r module; do
    cp "$root$module" "$tree/modules/$number-${module##*/}"
    number=$((number + 1))
  done
  cat >"$tree/init" <<'END'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
until [ -b /dev/vda ]; do /bin/busybox usleep 20000; done
/bin/busybox mount -t ext4 -o rw /dev/vda /root || exec /bin/busybox sh
/bin/busybox umount /proc
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
END
  chmod +x "$tree/init"
  (cd "$tree" && find . | cpio --quiet -o -H newc) >"$guest/initrd.cpio"
  rm -rf "$tree"
}

# guest_disk DIR GIB: its file tree as $guest/root.qcow2.
guest_disk() {
  mke2fs -q -t ext4 -d "$1" -L root -E lazy_itable_init=1,root_owner=0:0 "$guest/root.raw" "${2}G"
  qemu-img convert -q -O qcow2 "$guest/root.raw" "$guest/root.qcow2"
  rm -f "$guest/root.raw"
}

guest_arguments='console=ttyS0 panic=-1 net.ifnames=0 systemd.show_status=0 audit=0 apparmor=0 random.trust_cpu=on mitigations=off'

# guest_start MIB NET [ARGUMENT-OF-QEMU...]: from $guest/root.qcow2, whose changes go to $guest/disk.qcow2. NET: `closed` (ssh from here
# alone) or `open` (the mirror, too).
guest_start() {
  local memory=$1 net=user attempt
  [[ $2 == open ]] || net=user,restrict=on
  shift 2
  [[ -e $guest/disk.qcow2 ]] || qemu-img create -q -f qcow2 -F qcow2 -b "$guest/root.qcow2" "$guest/disk.qcow2"
  for attempt in 1 2 3; do
    guest_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # Whoever took the port meanwhile makes QEMU end at once.
    qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" -nodefaults -no-user-config -display none -no-reboot \
      -kernel "$guest/vmlinuz" -initrd "$guest/initrd.cpio" -append "$guest_arguments" \
      -drive "if=none,id=disk,file=$guest/disk.qcow2,format=qcow2,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=disk \
      -netdev "$net,id=net,hostfwd=tcp:127.0.0.1:$guest_port-:22" -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci \
      -serial "file:$guest/console" -pidfile "$guest/pid" -daemonize "$@" 2>"$guest/qemu.log" && {
      guest_options=(-i "$guest/key" -p "$guest_port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes
        -o ConnectTimeout=20 -o ServerAliveInterval=20 -o ServerAliveCountMax=6)
      return
    }
    grep -q 'Could not set up host forwarding' "$guest/qemu.log" || break
  done
  die "QEMU does not start (attempt $attempt): $(tail -n 3 "$guest/qemu.log")"
}

guest_alive() { [[ -s $guest/pid ]] && kill -0 "$(cat "$guest/pid")" 2>/dev/null; }

# guest_ssh COMMAND...: as root in the guest. Its host key is as new as the guest, and the port leads nowhere else.
guest_ssh() { ssh -q "${guest_options[@]}" root@127.0.0.1 "$@" </dev/null; }

# guest_wait SECONDS: until it lets us in.
guest_wait() {
  local deadline=$((SECONDS + $1))
  until timeout 60 ssh -q "${guest_options[@]}" root@127.0.0.1 true </dev/null; do
    guest_alive || die "the guest has ended; its console ends: $(tail -n 20 "$guest/console")"
    ((SECONDS < deadline)) || die "the guest lets nobody in; its console ends: $(tail -n 20 "$guest/console")"
    sleep 1
  done
}

# guest_stop: at once. Its disk is thrown away or was synced.
guest_stop() {
  local pid
  [[ -s $guest/pid ]] || return 0
  pid=$(cat "$guest/pid")
  # A pid file of QEMU's is this guest's as long as its command line names our disk.
  if grep -qzF "$guest/" "/proc/$pid/cmdline" 2>/dev/null; then
    kill -KILL "$pid"
    wait_for 20 bash -c "! kill -0 $pid"
  fi
  rm -f "$guest/pid"
}
