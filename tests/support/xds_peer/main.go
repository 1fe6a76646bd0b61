// A management server made of go-control-plane's snapshot cache, for tests/e2e/test_xds_peers.py: serves the resources of a file, and
// again whenever that file is replaced. scripts/setup --peers builds it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// {"version": "1", "resources": {"CDS": [{...}, ...], ...}}; each resource without "@type".
type state struct {
	Version   string                       `json:"version"`
	Resources map[string][]json.RawMessage `json:"resources"`
}

var urls = map[string]resource.Type{"CDS": resource.ClusterType, "EDS": resource.EndpointType, "LDS": resource.ListenerType,
	"RDS": resource.RouteType, "SDS": resource.SecretType}

func load(path string) (*cache.Snapshot, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	all := map[resource.Type][]types.Resource{}
	for short, list := range s.Resources {
		url, known := urls[short]
		if !known {
			return nil, fmt.Errorf("%q is no type", short)
		}
		all[url] = []types.Resource{}
		for _, raw := range list {
			// As an Any of JSON, so that the type need not be known here.
			fields := map[string]json.RawMessage{}
			if err := json.Unmarshal(raw, &fields); err != nil {
				return nil, err
			}
			fields["@type"], _ = json.Marshal(url)
			typed, _ := json.Marshal(fields)
			var any anypb.Any
			if err := protojson.Unmarshal(typed, &any); err != nil {
				return nil, fmt.Errorf("%s: %w", short, err)
			}
			message, err := any.UnmarshalNew()
			if err != nil {
				return nil, err
			}
			all[url] = append(all[url], message)
		}
	}
	return cache.NewSnapshot(s.Version, all)
}

// Both gateways of a test get the same.
func watch(ctx context.Context, path string, nodes []string, snapshots cache.SnapshotCache) {
	var seen time.Time
	for ; ; time.Sleep(50 * time.Millisecond) {
		info, err := os.Stat(path)
		if err != nil || info.ModTime().Equal(seen) {
			continue
		}
		seen = info.ModTime()
		snapshot, err := load(path)
		if err != nil {
			log.Fatalf("%s: %v", path, err)
		}
		for _, node := range nodes {
			if err := snapshots.SetSnapshot(ctx, node, snapshot); err != nil {
				log.Fatal(err)
			}
		}
	}
}

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to serve")
	path := flag.String("state", "", "file of the resources")
	flag.Parse()
	nodes := flag.Args()
	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, snapshots, nil))
	go watch(ctx, *path, nodes, snapshots)
	fmt.Println("serving", listener.Addr())
	log.Fatal(g.Serve(listener))
}
