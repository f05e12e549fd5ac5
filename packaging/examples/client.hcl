# A Nomad client of a fleet, made by `navvy host nomad-config` 0.1.0.
# The machine has 8 CPUs and 32 GiB. 2 CPUs and 4 GiB are kept for coordination,
# 6 CPUs and 28 GiB are left for tasks. The largest resource class that fits is large.
# It replaces /etc/nomad.d/nomad.hcl: Nomad reads every file of that directory.

datacenter = "dc1"
data_dir   = "/opt/nomad/data"
plugin_dir = "/usr/lib/nomad/plugins"

disable_update_check = true

# Nomad's HTTP API. Whoever reaches it may do what its ACL allows, without ACL everything.
addresses {
  http = "127.0.0.1"
}

advertise {
  http = "127.0.0.1"
}

client {
  enabled    = true
  node_class = "linux-64bit"

  # Tried for ever, until one of them answers.
  server_join {
    retry_join     = ["nomad.example.com:4647"]
    retry_interval = "15s"
  }

  # CPUs times 1000: a MHz of Nomad is a thousandth of a CPU.
  cpu_total_compute = 8000

  # Never given to tasks: 2 CPUs and 4 GiB, for Nomad, the engine, agents and uploads. The same stands in the
  # driver's own configuration below.
  reserved {
    cpu    = 2000
    memory = 4096
  }

  # What an agent may be given to cancel its job and to deliver the output; each Nomad job says how much of it it wants.
  max_kill_timeout = "5m"

  # Ended tasks keep their directory, with the agent's log, until there are more than so many. The disk is the engine's, too, and
  # is mostly full of images: removing logs would not help it.
  gc_max_allocs            = 100
  gc_disk_usage_threshold  = 95
  gc_inode_usage_threshold = 95

  # Jobs of other drivers would not be held by the driver's reservation.
  options = {
    "driver.allowlist" = "navvy"
  }
}

plugin "navvy-driver" {
  config {
    processor     = "https://processor.example.com:8585"
    processor_ca  = "/etc/navvy/ca.pem"
    environments  = ["docker"]

    reserve {
      cpus   = 2
      memory = "4GiB"
    }
  }
}

# Whoever may register a Nomad job would be root here.
plugin "raw_exec" {
  config {
    enabled = false
  }
}

tls {
  http = true
  rpc  = true

  ca_file   = "/etc/ssl/nomad/ca.pem"
  cert_file = "/etc/ssl/nomad/client.pem"
  key_file  = "/etc/ssl/nomad/key.pem"

  verify_server_hostname = true
}

telemetry {
  collection_interval        = "10s"
  disable_hostname           = true
  prometheus_metrics         = true
  publish_allocation_metrics = true
  publish_node_metrics       = true
}
