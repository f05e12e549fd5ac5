# Image of a client of a Nomad fleet, for three places. All that is done to the machine stands in packer/host/, in shell, and is the same
# for each: a builder only says where the machine comes from. docs/packer.md; scripts/packer lays out `stage` and calls packer.
#
#   Debian 12 (the cloud's own, or a disk of yours) ─▶ stage/ ─▶ host/provision ─▶ host/seal ─▶ image

variable "stage" {
  type        = string
  description = "What scripts/packer lays out: packages of Navvy, nomad, packer/host."
}

variable "version" {
  type        = string
  description = "Goes into the image's name."
}

variable "provision_arguments" {
  type        = string
  default     = ""
  description = "Nothing, or --without-qemu."
}

variable "aws_region" {
  type    = string
  default = "us-east-1"
}

variable "aws_instance_type" {
  type    = string
  default = "t3.medium"
}

variable "aws_subnet_id" {
  type        = string
  default     = ""
  description = "Nothing: the default network."
}

variable "gcp_project" {
  type    = string
  default = ""
}

variable "gcp_zone" {
  type    = string
  default = "us-central1-a"
}

variable "gcp_account_file" {
  type        = string
  default     = ""
  description = "Nothing: the credentials of the environment."
}

variable "qemu_disk" {
  type        = string
  default     = ""
  description = "A disk with a Debian 12 that lets qemu_user in by qemu_key."
}

variable "qemu_user" {
  type    = string
  default = "root"
}

variable "qemu_key" {
  type    = string
  default = ""
}

variable "qemu_accelerator" {
  type    = string
  default = "kvm"
}

variable "qemu_memory" {
  type    = number
  default = 2048
}

variable "qemu_disk_size" {
  type        = string
  default     = "16G"
  description = "The image's disk; what starts from it grows its file system, as Debian's own images do."
}

variable "qemu_arguments" {
  type        = list(list(string))
  default     = []
  description = "Further arguments of QEMU, such as a kernel for a disk without a boot loader."
}

variable "qemu_output" {
  type        = string
  default     = "target/packer/host-qemu"
  description = "A directory that is not there yet."
}

variable "qemu_ssh_timeout" {
  type    = string
  default = "10m"
}

source "amazon-ebs" "host" {
  region        = var.aws_region
  instance_type = var.aws_instance_type
  subnet_id     = var.aws_subnet_id
  ssh_username  = "admin"

  source_ami_filter {
    filters = {
      name                = "debian-12-amd64-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
    # Debian's own account.
    owners      = ["136693071363"]
    most_recent = true
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 16
    volume_type           = "gp2"
    delete_on_termination = true
  }

  ami_name     = "navvy-host-${var.version}"
  encrypt_boot = true

  tags = {
    Name    = "navvy-host"
    version = var.version
  }
  run_tags = {
    Name = "navvy-host-build"
  }
}

source "googlecompute" "host" {
  project_id          = var.gcp_project
  zone                = var.gcp_zone
  account_file        = var.gcp_account_file
  source_image_family = "debian-12"
  machine_type        = "e2-medium"
  disk_size           = 16
  ssh_username        = "packer"
  image_name          = "navvy-host-${replace(var.version, ".", "-")}"
  image_family        = "navvy-host"

  image_labels = {
    version = replace(var.version, ".", "-")
  }
}

source "qemu" "host" {
  disk_image           = true
  iso_url              = var.qemu_disk
  iso_checksum         = "none"
  accelerator          = var.qemu_accelerator
  cpus                 = 2
  memory               = var.qemu_memory
  disk_size            = var.qemu_disk_size
  headless             = true
  format               = "qcow2"
  disk_interface       = "virtio"
  net_device           = "virtio-net"
  output_directory     = var.qemu_output
  vm_name              = "navvy-host.qcow2"
  boot_wait            = "1s"
  ssh_username         = var.qemu_user
  ssh_private_key_file = var.qemu_key
  ssh_timeout          = var.qemu_ssh_timeout
  shutdown_command     = "systemctl poweroff || sudo systemctl poweroff"
  shutdown_timeout     = "10m"

  # Left to itself, packer has the machine's ssh server listen on every address of this host.
  qemuargs = concat([
    ["-netdev", "user,id=user.0,hostfwd=tcp:127.0.0.1:{{ .SSHHostPort }}-:22"],
  ], var.qemu_arguments)
}

build {
  sources = [
    "source.amazon-ebs.host",
    "source.googlecompute.host",
    "source.qemu.host",
  ]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/navvy-host"]
  }

  provisioner "file" {
    source      = var.stage
    destination = "/tmp/navvy-host/"
  }

  # The clouds' first user may become root, and QEMU's mostly is.
  provisioner "shell" {
    inline = [
      "as_root() { if [ $(id -u) = 0 ]; then \"$@\"; else sudo \"$@\"; fi; }",
      "as_root bash /tmp/navvy-host/provision /tmp/navvy-host ${var.provision_arguments}",
      "as_root bash /tmp/navvy-host/seal",
    ]
  }
}
