// Package nomad_test holds Nomad's own conformance tests of drivers against `navvy-driver`, loaded by Nomad's own loader exactly as
// its agent loads it. The story `nomad_conformance` (tests/stories) starts a processor, makes tasks with their launch tokens, and runs
// this program with their description in the file that NAVVY_CONFORMANCE names.
package nomad_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/client/lib/cgroupslib"
	"github.com/hashicorp/nomad/client/lib/numalib"
	"github.com/hashicorp/nomad/client/lib/numalib/hw"
	"github.com/hashicorp/nomad/helper/pluginutils/hclspecutils"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/helper/pluginutils/loader"
	"github.com/hashicorp/nomad/helper/uuid"
	"github.com/hashicorp/nomad/nomad/structs"
	"github.com/hashicorp/nomad/nomad/structs/config"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
	"github.com/shoenig/test/must"
	"github.com/zclconf/go-cty/cty"
)

const (
	driverName = "navvy"
	// The plugin's file name, by which its block in the agent's configuration is called.
	fileName = "navvy-driver"
	// For containers to begin or end on a busy machine.
	limit = 2 * time.Minute
)

// given is what the story has prepared.
type given struct {
	// The plugin directory, which holds the driver alone.
	Plugins string `json:"plugins"`
	// The program `navvy`.
	Agent string `json:"agent"`
	// The driver's state directory.
	State string `json:"state"`
	// The processor's address for agents.
	Processor string `json:"processor"`
	// By the name of their job, each to be started once.
	Tasks map[string]struct {
		Task  string `json:"task"`
		Token string `json:"token"`
	} `json:"tasks"`
}

func prepared(t *testing.T) given {
	t.Helper()
	path := os.Getenv("NAVVY_CONFORMANCE")
	if path == "" {
		t.Fatal("NAVVY_CONFORMANCE is not set: the story nomad_conformance runs these tests")
	}
	text, err := os.ReadFile(path)
	must.NoError(t, err)
	var made given
	must.NoError(t, json.Unmarshal(text, &made))
	return made
}

func logger(t *testing.T) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: t.Name(), Level: hclog.Debug, Output: os.Stderr})
}

// settings are the plugin block's values; those of `changes` beside or instead.
func settings(g given, changes map[string]any) map[string]any {
	all := map[string]any{
		"agent_path": g.Agent,
		"state_dir":  g.State,
		"processor":  g.Processor,
		"reserve":    []map[string]any{{"cpus": 0, "memory": "0"}},
	}
	for key, value := range changes {
		all[key] = value
	}
	return all
}

// load loads the plugin directory as the agent does at its start.
func load(t *testing.T, g given, changes map[string]any) (*loader.PluginLoader, error) {
	return loader.NewPluginLoader(&loader.PluginLoaderConfig{
		Logger:            logger(t),
		PluginDir:         g.Plugins,
		Configs:           []*config.PluginConfig{{Name: fileName, Config: settings(g, changes)}},
		SupportedVersions: loader.AgentSupportedApiVersions,
	})
}

// agentConfig is what a client with eight CPUs says of its machine.
func agentConfig() *base.AgentConfig {
	cores := make([]numalib.Core, 8)
	for i := range cores {
		cores[i] = numalib.Core{ID: hw.CoreID(i), BaseSpeed: 1000}
	}
	return &base.AgentConfig{Driver: &base.ClientDriverConfig{
		ClientMinPort: 14000,
		ClientMaxPort: 14512,
		Topology:      topology(cores),
	}}
}

// dispense launches the plugin as the client's driver manager does.
func dispense(t *testing.T, l *loader.PluginLoader) (loader.PluginInstance, drivers.DriverPlugin) {
	t.Helper()
	instance, err := l.Dispense(driverName, base.PluginTypeDriver, agentConfig(), logger(t))
	must.NoError(t, err)
	return instance, instance.Plugin().(drivers.DriverPlugin)
}

// launched is a plugin with good settings, which ends with the test.
func launched(t *testing.T) (given, *loader.PluginLoader, drivers.DriverPlugin) {
	t.Helper()
	g := prepared(t)
	l, err := load(t, g, nil)
	must.NoError(t, err)
	instance, driver := dispense(t, l)
	t.Cleanup(instance.Kill)
	return g, l, driver
}

// encoded are values as Nomad would hand them to the driver: checked and completed by its own schema.
func encoded(t *testing.T, driver drivers.DriverPlugin, task *drivers.TaskConfig, values map[string]any) error {
	t.Helper()
	schema, err := driver.TaskConfigSchema()
	must.NoError(t, err)
	spec, diagnostics := hclspecutils.Convert(schema)
	must.False(t, diagnostics.HasErrors(), must.Sprintf("%v", diagnostics))
	value, diagnostics, errs := hclutils.ParseHclInterface(values, spec, map[string]cty.Value{})
	if diagnostics.HasErrors() {
		return fmt.Errorf("%v: %v", diagnostics, errs)
	}
	return task.EncodeDriverConfig(value)
}

// started is a Nomad task on its way.
type started struct {
	*testutils.DriverHarness
	config *drivers.TaskConfig
	handle *drivers.TaskHandle
	// Where the collector of logs writes.
	logs string
}

// taskConfig is a Nomad task with half a CPU and half a GiB.
func taskConfig(name string) *drivers.TaskConfig {
	alloc := uuid.Generate()
	return &drivers.TaskConfig{
		ID:      fmt.Sprintf("%s/%s/%s", alloc, name, uuid.Short()),
		AllocID: alloc,
		Name:    name,
		Env:     map[string]string{},
		Resources: &drivers.Resources{
			NomadResources: &structs.AllocatedTaskResources{
				Cpu:    structs.AllocatedCpuResources{CpuShares: 500},
				Memory: structs.AllocatedMemoryResources{MemoryMB: 512},
			},
			LinuxResources: &drivers.LinuxResources{CPUShares: 500, MemoryLimitBytes: 512 << 20, PercentTicks: 0.0625},
		},
	}
}

// allocated makes the directories, cgroups and log collector of a Nomad task, as the client does before it starts one; `name` is the job
// whose task it carries out.
func allocated(t *testing.T, g given, driver drivers.DriverPlugin, name string) (*testutils.DriverHarness, *drivers.TaskConfig) {
	t.Helper()
	task, known := g.Tasks[name]
	must.True(t, known, must.Sprintf("the story has made no task %q", name))
	harness := testutils.NewDriverHarness(t, driver)
	config := taskConfig(name)
	harness.MakeTaskCgroup(config.AllocID, config.Name)
	config.Resources.LinuxResources.CpusetCgroupPath = cgroupslib.LinuxResourcesPath(config.AllocID, config.Name, false)
	must.NoError(t, encoded(t, driver, config, map[string]any{"task": task.Task}))
	t.Cleanup(harness.MkAllocDir(config, true))
	token := filepath.Join(config.TaskDir().LocalDir, "token")
	must.NoError(t, os.WriteFile(token, []byte(task.Token), 0o600))
	return harness, config
}

// start starts the task of the job `name`. It is stopped and destroyed with the test, if it is still there then.
func start(t *testing.T, g given, driver drivers.DriverPlugin, name string) *started {
	t.Helper()
	harness, config := allocated(t, g, driver, name)
	handle, network, err := harness.StartTask(config)
	must.NoError(t, err)
	must.Nil(t, network)
	s := &started{DriverHarness: harness, config: config, handle: handle, logs: config.TaskDir().LogDir}
	t.Cleanup(func() {
		_ = driver.StopTask(config.ID, 20*time.Second, "")
		_ = driver.DestroyTask(config.ID, true)
	})
	must.NoError(t, s.WaitUntilStarted(config.ID, limit))
	return s
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, answer func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := answer()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// begun waits until the job's primary container is there: from then on a command can be run in it.
func (s *started) begun(t *testing.T) {
	t.Helper()
	eventually(t, "the job's container", func() error {
		done, err := s.ExecTask(s.config.ID, []string{"test", "-e", "/tmp/ready"}, 20*time.Second)
		if err != nil {
			return err
		}
		if done.ExitResult.ExitCode != 0 {
			return fmt.Errorf("exit code %d: %s", done.ExitResult.ExitCode, done.Stderr)
		}
		return nil
	})
}
