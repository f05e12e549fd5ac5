//go:build nomad_1_7

package nomad_test

import (
	"github.com/hashicorp/nomad/client/lib/idset"
	"github.com/hashicorp/nomad/client/lib/numalib"
	"github.com/hashicorp/nomad/client/lib/numalib/hw"
)

func topology(cores []numalib.Core) *numalib.Topology {
	return numalib.NewTopology(idset.From[hw.NodeID]([]hw.NodeID{0}), numalib.SLIT{{10}}, cores)
}
