# What the processor registers for the class medium of the docker executor, to look at. There is no need to register it by hand: it
# does so when the first task of the class is there, and dispatches one Nomad job for each task. The payload is the task's token.
job "navvy-docker-medium" {
  type        = "batch"
  datacenters = ["*"]

  parameterized {
    payload       = "required"
    meta_required = ["task", "processor"]
    meta_optional = ["fleet", "attempt"]
  }

  # The client's driver says what it has: docker, vm.
  constraint {
    attribute = "${attr.driver.navvy.environments}"
    operator  = "set_contains"
    value     = "docker"
  }

  constraint {
    attribute = "${node.class}"
    value     = "linux-64bit"
  }

  group "task" {
    # A task runs once. What is to be tried again is the processor's to say.
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "agent" {
      driver = "navvy"

      config {
        task        = "${NOMAD_META_task}"
        processor   = "${NOMAD_META_processor}"
        environment = "docker"
      }

      dispatch_payload {
        file = "token"
      }

      # Thousandths of a CPU, on clients of `navvy host nomad-config`; MiB.
      resources {
        cpu    = 2000
        memory = 4096
      }

      kill_signal  = "SIGTERM"
      kill_timeout = "30s"
    }
  }
}
