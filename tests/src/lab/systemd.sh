# Becomes a systemd that rules over one host of the lab, and over nothing else of the machine.
#
# It is run by the first process of a PID namespace, in a mount namespace of its own. Arguments: the
# directory that becomes its root, the name of its control group, which is there, and the programs of
# the machine's that are to be seen. The units are in the root's `units`; there are no others.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root=$1
group=$2
shift 2

mount --bind "$root" "$root"
cd "$root"
for directory in lib lib32 lib64 sbin share; do
    if [ -d "/usr/$directory" ]; then
        mkdir -p "usr/$directory"
        mount --bind "/usr/$directory" "usr/$directory"
    fi
    ln -s "usr/$directory" "$directory"
done
for program; do
    : > "usr/bin/$program"
    mount --bind "/usr/bin/$program" "usr/bin/$program"
done
ln -s usr/bin bin

mount -t proc proc proc
# With the host's interfaces, and its bpffs.
mount --rbind /sys sys
for directory in dev run tmp; do mount -t tmpfs tmpfs "$directory"; done
for device in full null random tty urandom zero; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
ln -s pts/ptmx dev/ptmx

mount -t cgroup2 cgroup2 sys/fs/cgroup
echo 0 > "sys/fs/cgroup/$group/cgroup.procs"
umount sys/fs/cgroup
# In the next namespace, that group is the root of them all.
exec unshare --cgroup --ipc --uts sh -eu -c '
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    pivot_root . old
    /old/usr/bin/umount --lazy /old
    cd /
    # What it would do to a machine that it has booted, it does not do in a container.
    export container=lab
    export SYSTEMD_UNIT_PATH=/units SYSTEMD_GENERATOR_PATH=/none
    exec /usr/lib/systemd/systemd --system --unit=lab.target --log-target=journal --show-status=no
'
