package nomad_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/helper/pluginutils/loader"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/hashicorp/nomad/plugins/drivers/testutils"
	"github.com/shoenig/test/must"
)

// ended waits for a task's end.
func ended(t *testing.T, driver drivers.DriverPlugin, id string) *drivers.ExitResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	result, err := driver.WaitTask(ctx, id)
	must.NoError(t, err)
	select {
	case end := <-result:
		must.NotNil(t, end)
		return end
	case <-ctx.Done():
		t.Fatalf("task %s does not end", id)
		return nil
	}
}

// said waits until one of a task's two logs, as Nomad collects them, has this in it.
func (s *started) said(t *testing.T, stream, part string) {
	t.Helper()
	path := filepath.Join(s.logs, fmt.Sprintf("%s.%s.0", s.config.Name, stream))
	eventually(t, part+" in "+stream, func() error {
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), part) {
			err = fmt.Errorf("there is %q", text)
		}
		return err
	})
}

// Nomad's own conformance tests of commands in a running task: exit codes, streams, terminals and their size.
func TestExecStreaming(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "exec")
	task.begun(t)
	testutils.TestExecTaskStreamingBasicResponses(t, task.DriverHarness, task.config.ID)
}

// Commands see the job's files and not the host's, and stand in the task's cgroup.
func TestExecIsolation(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "isolation")
	task.begun(t)
	testutils.TestExecFSIsolation(t, task.DriverHarness, task.config.ID)
}

func TestExecTask(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "exec-task")
	task.begun(t)
	done, err := task.ExecTask(task.config.ID, []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}, limit)
	must.NoError(t, err)
	must.Eq(t, 7, done.ExitResult.ExitCode)
	must.Eq(t, "out\n", string(done.Stdout))
	must.Eq(t, "err\n", string(done.Stderr))
	begin := time.Now()
	_, err = task.ExecTask(task.config.ID, []string{"sleep", "600"}, time.Second)
	must.Error(t, err)
	must.Less(t, limit, time.Since(begin))
	// What took too long is ended in the container, too.
	grows := "while :; do echo x >>/tmp/grows; sleep 0.1; done"
	_, err = task.ExecTask(task.config.ID, []string{"/bin/sh", "-c", grows}, time.Second)
	must.Error(t, err)
	var before string
	eventually(t, "that the command has ended", func() error {
		done, err := task.ExecTask(task.config.ID, []string{"/bin/sh", "-c", "wc -c </tmp/grows; sleep 0.5"}, limit)
		must.NoError(t, err)
		now := string(done.Stdout)
		if now == before {
			return nil
		}
		before = now
		return fmt.Errorf("it goes on: %s", now)
	})
	_, err = task.ExecTask(task.config.ID, nil, time.Second)
	must.Error(t, err)
	done, err = task.ExecTask(task.config.ID, []string{"/no/such/program"}, limit)
	must.True(t, err != nil || done.ExitResult.ExitCode != 0)
}

func TestStartWaitDestroy(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "passes")
	must.Positive(t, task.handle.Version)
	must.Eq(t, drivers.TaskStateRunning, task.handle.State)
	must.Eq(t, task.config.ID, task.handle.Config.ID)
	_, _, err := driver.StartTask(task.config)
	must.Error(t, err, must.Sprint("a task is started once"))
	// Two may wait, and one may wait for what has ended.
	both := make(chan *drivers.ExitResult, 2)
	for range 2 {
		go func() { both <- ended(t, driver, task.config.ID) }()
	}
	for range 2 {
		end := <-both
		must.NoError(t, end.Err)
		must.True(t, end.Successful(), must.Sprintf("%+v", end))
	}
	must.True(t, ended(t, driver, task.config.ID).Successful())
	status, err := task.InspectTask(task.config.ID)
	must.NoError(t, err)
	must.Eq(t, drivers.TaskStateExited, status.State)
	must.False(t, status.StartedAt.IsZero())
	must.False(t, status.CompletedAt.Before(status.StartedAt))
	must.NoError(t, driver.StopTask(task.config.ID, time.Second, ""))
	must.NoError(t, driver.DestroyTask(task.config.ID, true))
	_, err = driver.InspectTask(task.config.ID)
	must.Error(t, err)
	must.NoError(t, driver.DestroyTask(task.config.ID, true))
	must.SliceEmpty(t, directoriesOf(t, g, "passes"), must.Sprint("its directory is left"))
}

// directoriesOf are those of the driver's that belong to a job's task.
func directoriesOf(t *testing.T, g given, name string) []string {
	t.Helper()
	hosts, err := filepath.Glob(filepath.Join(g.State, "tasks", "*", "host.json"))
	must.NoError(t, err)
	var found []string
	for _, host := range hosts {
		// It may be removed meanwhile.
		if text, err := os.ReadFile(host); err == nil && strings.Contains(string(text), g.Tasks[name].Task) {
			found = append(found, filepath.Dir(host))
		}
	}
	return found
}

// The agent's own log goes to stderr. The launch token is in neither stream.
func TestLogs(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "logs")
	task.begun(t)
	must.NoError(t, driver.StopTask(task.config.ID, 20*time.Second, ""))
	task.said(t, "stderr", "Preparing the environment")
	for _, stream := range []string{"stdout", "stderr"} {
		text, err := os.ReadFile(filepath.Join(task.logs, task.config.Name+"."+stream+".0"))
		must.NoError(t, err)
		must.False(t, strings.Contains(string(text), g.Tasks["logs"].Token), must.Sprint("the token is shown"))
	}
}

func TestStop(t *testing.T) {
	g, _, driver := launched(t)
	for _, name := range []string{"stopped", "stubborn"} {
		t.Run(name, func(t *testing.T) {
			task := start(t, g, driver, name)
			task.begun(t)
			must.NoError(t, driver.StopTask(task.config.ID, 20*time.Second, "SIGTERM"))
			status, err := driver.InspectTask(task.config.ID)
			must.NoError(t, err)
			must.Eq(t, drivers.TaskStateExited, status.State, must.Sprint("it returns when the task is dead"))
			ended(t, driver, task.config.ID)
			must.NoError(t, driver.StopTask(task.config.ID, time.Second, "SIGTERM"))
		})
	}
}

// What nobody knows: stopping and destroying it is done already, everything else is an error.
func TestUnknownTask(t *testing.T) {
	_, _, driver := launched(t)
	id := taskConfig("unknown").ID
	must.NoError(t, driver.StopTask(id, time.Second, ""))
	must.NoError(t, driver.DestroyTask(id, true))
	_, err := driver.InspectTask(id)
	must.Error(t, err)
	must.Error(t, driver.SignalTask(id, "SIGHUP"))
	_, err = driver.ExecTask(id, []string{"true"}, time.Second)
	must.Error(t, err)
}

func TestSignals(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "signals")
	task.begun(t)
	must.Error(t, driver.SignalTask(task.config.ID, "SIGNONSENSE"))
	must.NoError(t, driver.SignalTask(task.config.ID, "SIGTERM"))
	ended(t, driver, task.config.ID)
}

func TestStats(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "stats")
	task.begun(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	told, err := driver.TaskStats(ctx, task.config.ID, 200*time.Millisecond)
	must.NoError(t, err)
	for seen := 0; seen < 3; {
		usage, open := <-told
		must.True(t, open)
		must.NotNil(t, usage.ResourceUsage)
		must.NotNil(t, usage.ResourceUsage.CpuStats)
		must.NotNil(t, usage.ResourceUsage.MemoryStats)
		must.Positive(t, usage.Timestamp)
		must.SliceNotEmpty(t, usage.ResourceUsage.CpuStats.Measured)
		must.SliceNotEmpty(t, usage.ResourceUsage.MemoryStats.Measured)
		// The whole task: its container, too.
		if usage.ResourceUsage.MemoryStats.RSS+usage.ResourceUsage.MemoryStats.Usage > 0 && usage.ResourceUsage.CpuStats.Percent > 0 {
			seen++
		}
	}
}

func TestEvents(t *testing.T) {
	g, _, driver := launched(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	told, err := driver.TaskEvents(ctx)
	must.NoError(t, err)
	task := start(t, g, driver, "events")
	for event := range told {
		must.NoError(t, event.Err)
		if event.TaskID != task.config.ID {
			continue
		}
		must.Eq(t, task.config.AllocID, event.AllocID)
		must.Eq(t, task.config.Name, event.TaskName)
		must.False(t, event.Timestamp.IsZero())
		// Of what is told in quick succession the newest is shown, and the end always.
		if event.Message == "The job passed." {
			return
		}
	}
	t.Fatal("no event tells of the end")
}

// persisted is a handle as Nomad's client has it after a restart: without the task's own configuration.
func persisted(t *testing.T, handle *drivers.TaskHandle) *drivers.TaskHandle {
	t.Helper()
	text, err := json.Marshal(handle)
	must.NoError(t, err)
	var read drivers.TaskHandle
	must.NoError(t, json.Unmarshal(text, &read))
	return &read
}

// The plugin is killed in the middle of a task; another one goes on with it and tells its true end.
func TestRecoverAfterACrash(t *testing.T) {
	g := prepared(t)
	l, err := load(t, g, nil)
	must.NoError(t, err)
	first, driver := dispense(t, l)
	task := start(t, g, driver, "recovered")
	task.begun(t)
	crash(t, first)
	second, driver := dispense(t, l)
	defer second.Kill()
	handle := persisted(t, task.handle)
	must.NoError(t, driver.RecoverTask(handle))
	must.NoError(t, driver.RecoverTask(handle), must.Sprint("it is known already"))
	status, err := driver.InspectTask(task.config.ID)
	must.NoError(t, err)
	must.Eq(t, drivers.TaskStateRunning, status.State)
	done, err := driver.ExecTask(task.config.ID, []string{"touch", "/tmp/go"}, limit)
	must.NoError(t, err)
	must.Eq(t, 0, done.ExitResult.ExitCode)
	must.True(t, ended(t, driver, task.config.ID).Successful())
	must.NoError(t, driver.DestroyTask(task.config.ID, true))
}

// A task that ends while there is no plugin: the next one still knows how.
func TestRecoverWhatHasEnded(t *testing.T) {
	g := prepared(t)
	l, err := load(t, g, nil)
	must.NoError(t, err)
	first, driver := dispense(t, l)
	task := start(t, g, driver, "ends-alone")
	task.begun(t)
	done, err := driver.ExecTask(task.config.ID, []string{"/bin/sh", "-c", "sleep 1; touch /tmp/go"}, limit)
	must.NoError(t, err)
	must.Eq(t, 0, done.ExitResult.ExitCode)
	crash(t, first)
	eventually(t, "the end of the agent", func() error {
		for _, directory := range directoriesOf(t, g, "ends-alone") {
			if _, err := os.Stat(filepath.Join(directory, "exit.json")); err == nil {
				return nil
			}
		}
		return fmt.Errorf("no exit is told")
	})
	second, driver := dispense(t, l)
	defer second.Kill()
	must.NoError(t, driver.RecoverTask(persisted(t, task.handle)))
	must.True(t, ended(t, driver, task.config.ID).Successful())
	must.NoError(t, driver.DestroyTask(task.config.ID, true))
}

// Nomad is killed and started again: it finds the plugin that it had.
func TestReattach(t *testing.T) {
	g, l, driver := launchedToStay(t)
	task := start(t, g, driver.plugin, "reattached")
	task.begun(t)
	how, can := driver.instance.ReattachConfig()
	must.True(t, can)
	again, err := l.Reattach(driverName, base.PluginTypeDriver, how)
	must.NoError(t, err)
	plugin := again.Plugin().(drivers.DriverPlugin)
	info, err := plugin.PluginInfo()
	must.NoError(t, err)
	must.Eq(t, driverName, info.Name)
	must.NoError(t, plugin.RecoverTask(persisted(t, task.handle)))
	status, err := plugin.InspectTask(task.config.ID)
	must.NoError(t, err)
	must.Eq(t, drivers.TaskStateRunning, status.State)
	must.NoError(t, plugin.StopTask(task.config.ID, 20*time.Second, ""))
	ended(t, plugin, task.config.ID)
	must.NoError(t, plugin.DestroyTask(task.config.ID, true))
}

// A handle of a task that is no more, as after a reboot, is an error and not an end.
func TestRecoverWhatIsGone(t *testing.T) {
	g, _, driver := launched(t)
	task := start(t, g, driver, "gone")
	must.NoError(t, driver.StopTask(task.config.ID, 20*time.Second, ""))
	ended(t, driver, task.config.ID)
	must.NoError(t, driver.DestroyTask(task.config.ID, true))
	must.Error(t, driver.RecoverTask(persisted(t, task.handle)))
	foreign := persisted(t, task.handle)
	foreign.Version += 1000
	must.Error(t, driver.RecoverTask(foreign), must.Sprint("a handle of another version is not understood"))
}

// Nothing can be started without its token, and what was wrong is said.
func TestStartErrors(t *testing.T) {
	g, _, driver := launched(t)
	for name, spoil := range map[string]func(config *drivers.TaskConfig) string{
		"no token": func(config *drivers.TaskConfig) string {
			must.NoError(t, os.Remove(filepath.Join(config.TaskDir().LocalDir, "token")))
			return "local/token"
		},
		"token is a directory": func(config *drivers.TaskConfig) string {
			path := filepath.Join(config.TaskDir().LocalDir, "token")
			must.NoError(t, os.Remove(path))
			must.NoError(t, os.Mkdir(path, 0o700))
			return "local/token"
		},
		"token is a link": func(config *drivers.TaskConfig) string {
			path := filepath.Join(config.TaskDir().LocalDir, "token")
			must.NoError(t, os.Remove(path))
			must.NoError(t, os.Symlink("/etc/hostname", path))
			return "local/token"
		},
		"token is empty": func(config *drivers.TaskConfig) string {
			must.NoError(t, os.WriteFile(filepath.Join(config.TaskDir().LocalDir, "token"), nil, 0o600))
			return "local/token"
		},
		"environment": func(config *drivers.TaskConfig) string {
			values := map[string]any{"task": g.Tasks["never"].Task, "environment": "vm"}
			must.NoError(t, encoded(t, driver, config, values))
			return "environment"
		},
		"task": func(config *drivers.TaskConfig) string {
			must.NoError(t, encoded(t, driver, config, map[string]any{"task": "../../etc"}))
			return "task"
		},
		"token_file": func(config *drivers.TaskConfig) string {
			values := map[string]any{"task": g.Tasks["never"].Task, "token_file": "/etc/hostname"}
			must.NoError(t, encoded(t, driver, config, values))
			return "token_file"
		},
	} {
		t.Run(name, func(t *testing.T) {
			harness, config := allocated(t, g, driver, "never")
			told := spoil(config)
			_, _, err := harness.StartTask(config)
			must.ErrorContains(t, err, told)
			must.False(t, strings.Contains(err.Error(), g.Tasks["never"].Token))
			_, err = driver.InspectTask(config.ID)
			must.Error(t, err, must.Sprint("nothing of it is kept"))
		})
	}
}

// staying is a plugin that is not killed by go-plugin's own means but by the test.
type staying struct {
	instance loader.PluginInstance
	plugin   drivers.DriverPlugin
}

func launchedToStay(t *testing.T) (given, *loader.PluginLoader, staying) {
	t.Helper()
	g := prepared(t)
	l, err := load(t, g, nil)
	must.NoError(t, err)
	instance, driver := dispense(t, l)
	t.Cleanup(instance.Kill)
	return g, l, staying{instance, driver}
}

// crash ends a plugin as the kernel would.
func crash(t *testing.T, instance loader.PluginInstance) {
	t.Helper()
	how, _ := instance.ReattachConfig()
	must.NoError(t, syscall.Kill(how.Pid, syscall.SIGKILL))
	eventually(t, "the end of the plugin", func() error {
		if !instance.Exited() {
			return fmt.Errorf("it is there")
		}
		return nil
	})
}
