"""What a machine is: the driver protocol, the plan, images, disks, guest and network."""
