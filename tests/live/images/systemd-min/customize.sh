passwd -d root >/dev/null
systemctl mask systemd-logind.service getty@tty1.service serial-getty@ttyS0.service systemd-networkd.service
