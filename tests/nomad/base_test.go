package nomad_test

import (
	"context"
	"strings"
	"testing"

	"github.com/hashicorp/go-version"
	"github.com/hashicorp/nomad/helper/pluginutils/hclutils"
	"github.com/hashicorp/nomad/plugins/base"
	"github.com/hashicorp/nomad/plugins/drivers"
	"github.com/shoenig/test/must"
)

func TestPluginInfo(t *testing.T) {
	l, err := load(t, prepared(t), nil)
	must.NoError(t, err)
	known := l.Catalog()[base.PluginTypeDriver]
	must.Len(t, 1, known)
	must.Eq(t, driverName, known[0].Name)
	must.SliceContains(t, known[0].PluginApiVersions, drivers.ApiVersion010)
	_, err = version.NewSemver(known[0].PluginVersion)
	must.NoError(t, err)
}

func TestCapabilities(t *testing.T) {
	_, _, driver := launched(t)
	caps, err := driver.Capabilities()
	must.NoError(t, err)
	must.True(t, caps.SendSignals)
	must.True(t, caps.Exec)
	must.False(t, caps.MustInitiateNetwork)
}

// A task's values have the defaults that the documents name.
func TestTaskConfigDefaults(t *testing.T) {
	_, _, driver := launched(t)
	schema, err := driver.TaskConfigSchema()
	must.NoError(t, err)
	type values struct {
		Task        string  `codec:"task"`
		Processor   *string `codec:"processor"`
		TokenFile   string  `codec:"token_file"`
		Environment string  `codec:"environment"`
		Pids        *int    `codec:"pids"`
		Output      bool    `codec:"output"`
	}
	var read values
	parser := hclutils.NewConfigParser(schema)
	parser.ParseHCL(t, `config { task = "0123456789abcdef" }`, &read)
	must.Eq(t, values{Task: "0123456789abcdef", TokenFile: "local/token", Environment: "docker"}, read)
	parser.ParseHCL(t, `config {
		task       = "0123456789abcdef"
		processor  = "https://ci.example.com:8585"
		token_file = "secrets/token"
		pids       = 100
		output     = true
	}`, &read)
	must.Eq(t, "https://ci.example.com:8585", *read.Processor)
	must.Eq(t, "secrets/token", read.TokenFile)
	must.Eq(t, 100, *read.Pids)
	must.True(t, read.Output)
}

// A task's value of a wrong type, one that is unknown and one that is missing are refused by name, before the driver is asked.
func TestTaskConfigOfAWrongType(t *testing.T) {
	_, _, driver := launched(t)
	for key, values := range map[string]map[string]any{
		"pids":   {"task": "0123456789abcdef", "pids": "many"},
		"output": {"task": "0123456789abcdef", "output": "perhaps"},
		"colour": {"task": "0123456789abcdef", "colour": "red"},
		"task":   {},
	} {
		err := encoded(t, driver, taskConfig("t"), values)
		must.ErrorContains(t, err, key)
	}
}

// What is wrong with the plugin's settings never keeps Nomad's agent from starting: the driver is unhealthy and says key and reason.
func TestWrongSettingsAreToldByTheFingerprint(t *testing.T) {
	g := prepared(t)
	for key, value := range map[string]any{
		"agent_path":    "navvy",
		"state_dir":     7,
		"processor":     7,
		"processor_ca":  []string{"a"},
		"environments":  []string{"vm"},
		"reserve":       []map[string]any{{"cpus": "many"}},
		"cgroup_parent": "/../x",
		"docker":        7,
		"log_level":     "loud",
	} {
		t.Run(key, func(t *testing.T) {
			l, err := load(t, g, map[string]any{key: value})
			must.NoError(t, err)
			instance, driver := dispense(t, l)
			defer instance.Kill()
			first := fingerprint(t, driver)
			must.Eq(t, drivers.HealthStateUnhealthy, first.Health)
			must.True(t, strings.Contains(first.HealthDescription, key), must.Sprintf("%q", first.HealthDescription))
		})
	}
}

func fingerprint(t *testing.T, driver drivers.DriverPlugin) *drivers.Fingerprint {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	told, err := driver.Fingerprint(ctx)
	must.NoError(t, err)
	first, open := <-told
	must.True(t, open)
	must.NoError(t, first.Err)
	return first
}

func TestFingerprint(t *testing.T) {
	_, _, driver := launched(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	told, err := driver.Fingerprint(ctx)
	must.NoError(t, err)
	for found := range told {
		must.NoError(t, found.Err)
		if found.Health != drivers.HealthStateHealthy {
			continue
		}
		for _, name := range []string{
			"driver.navvy.version", "driver.navvy.healthy", "driver.navvy.agent.version", "driver.navvy.docker.version", "driver.navvy.kvm",
			"driver.navvy.environments", "driver.navvy.reserved.cpus", "driver.navvy.reserved.memory_mb",
			"driver.navvy.room.cpus", "driver.navvy.room.memory_mb",
		} {
			must.MapContainsKey(t, found.Attributes, name)
			value, isText := found.Attributes[name].GetString()
			must.True(t, isText && value != "", must.Sprintf("%s is %v", name, found.Attributes[name]))
		}
		return
	}
	t.Fatal("the driver never became healthy")
}

// A machine that is smaller than what is reserved on it.
func TestTooSmall(t *testing.T) {
	g := prepared(t)
	l, err := load(t, g, map[string]any{"reserve": []map[string]any{{"cpus": 9000, "memory": "4GiB"}}})
	must.NoError(t, err)
	instance, driver := dispense(t, l)
	defer instance.Kill()
	told, err := driver.Fingerprint(context.Background())
	must.NoError(t, err)
	for found := range told {
		must.NoError(t, found.Err)
		must.Eq(t, drivers.HealthStateUnhealthy, found.Health)
		if strings.Contains(found.HealthDescription, "too small") && strings.Contains(found.HealthDescription, "reserve") {
			return
		}
	}
	t.Fatal("it never said so")
}
