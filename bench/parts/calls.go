package parts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/run"
)

// Calls is a client of the public API that has some calls under way at all times.
type Calls struct {
	Addr, CA, Token string
	InFlight        int
	Connections     int
}

// Called is what came of it: answered to a line with a duration.
type Called struct {
	Calls    int           `json:"calls"`
	Took     time.Duration `json:"took"`
	P50, P99 time.Duration
}

func calls(ctx context.Context, _ *run.Group, settings json.RawMessage) (any, func(string) (any, error), error) {
	var s Calls
	if err := json.Unmarshal(settings, &s); err != nil {
		return nil, nil, err
	}
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	var clients []apiv1connect.PolicyServiceClient
	for range s.Connections {
		hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}}
		clients = append(clients, apiv1connect.NewPolicyServiceClient(hc, s.Addr, connect.WithGRPC()))
	}
	return struct{}{}, func(line string) (any, error) {
		d, err := time.ParseDuration(line)
		if err != nil {
			return nil, err
		}
		var mu sync.Mutex
		var all []time.Duration
		began := time.Now()
		g := run.New(ctx)
		for i := range s.InFlight {
			c := clients[i%len(clients)]
			g.Go("caller", func(ctx context.Context) error {
				var mine []time.Duration
				for time.Since(began) < d {
					req := connect.NewRequest(&apiv1.GetRequest{Kind: "task", Name: "bench-pass"})
					req.Header().Set("Authorization", "Bearer "+s.Token)
					at := time.Now()
					if _, err := c.Get(ctx, req); err != nil {
						return fmt.Errorf("call: %w", err)
					}
					mine = append(mine, time.Since(at))
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, mine...)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		took := time.Since(began)
		slices.Sort(all)
		return Called{Calls: len(all), Took: took, P50: all[len(all)/2], P99: all[len(all)*99/100]}, nil
	}, nil
}
