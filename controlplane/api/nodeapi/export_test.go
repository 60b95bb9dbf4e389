package nodeapi

import "google.golang.org/grpc"

// Methods lists what is served, by service.
func (s *Server) Methods() map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }
