# Image of the machines that jobs run in, for clouds: Debian's own image there, and what vm-image/recipe gives every guest. How the machine
# starts (kernel, boot loader, network, ssh host keys by cloud-init) stays the cloud's; agents reach it by ssh. For this host's QEMU there
# is `navvy image build`: no packer. docs/packer.md

variable "stage" {
  type        = string
  description = "What scripts/packer lays out: the recipe, the supervisor."
}

variable "version" {
  type        = string
  description = "Goes into the image's name."
}

variable "variant" {
  type        = string
  default     = "docker"
  description = "Of the recipe: minimal, docker, full."
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
  type    = string
  default = ""
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
  type    = string
  default = ""
}

source "amazon-ebs" "vm-image" {
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

  ami_name     = "navvy-vm-${var.variant}-${var.version}"
  encrypt_boot = true

  tags = {
    Name    = "navvy-vm-${var.variant}"
    version = var.version
  }
  run_tags = {
    Name = "navvy-vm-build"
  }
}

source "googlecompute" "vm-image" {
  project_id          = var.gcp_project
  zone                = var.gcp_zone
  account_file        = var.gcp_account_file
  source_image_family = "debian-12"
  machine_type        = "e2-medium"
  ssh_username        = "packer"
  image_name          = "navvy-vm-${var.variant}-${replace(var.version, ".", "-")}"
  image_family        = "navvy-vm-${var.variant}"

  image_labels = {
    version = replace(var.version, ".", "-")
  }
}

build {
  sources = [
    "source.amazon-ebs.vm-image",
    "source.googlecompute.vm-image",
  ]

  provisioner "shell" {
    inline = ["mkdir -p /tmp/navvy-vm"]
  }

  provisioner "file" {
    source      = var.stage
    destination = "/tmp/navvy-vm/"
  }

  provisioner "shell" {
    inline = [
      "sudo bash /tmp/navvy-vm/provision /tmp/navvy-vm ${var.variant}",
      "sudo bash /tmp/navvy-vm/seal",
    ]
  }
}
