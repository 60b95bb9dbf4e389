package http

import "testing"

func TestShape(t *testing.T) {
	for _, c := range []struct{ method, path, kind, want string }{
		{"GET", "/", "", "/"}, {"GET", "/orders/17/lines", "", "/orders/?/lines"}, {"GET", "/people/ann@example.com", "", "/people/?"}, {"GET", "/a//B", "", "/a//?"},
		{"POST", "/shop.v1.Orders/GetOrder", "application/grpc", "/shop.v1.Orders/GetOrder"}, {"POST", "/shop.v1.Orders/GetOrder", "application/json", "/?/?"},
		{"POST", "/shop.v1.Orders/Get/1", "application/grpc+proto", "/?/?/?"}, {"POST", "/17/Get", "application/grpc", "/?/?"}, {"POST", "/a@b.c/Get", "application/grpc", "/?/?"},
		{"GET", "/shop.v1.Orders/GetOrder", "application/grpc", "/?/?"},
	} {
		if got := (&Facts{Method: c.method, Path: c.path, ContentType: c.kind}).Shape(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
