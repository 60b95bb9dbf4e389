package arch

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestFieldsSayWhetherTheyAreSecret: the audit log and the answers of the API leave out
// what does not say that it is no secret, so every field that may come there says so.
func TestFieldsSayWhetherTheyAreSecret(t *testing.T) {
	seen := make(map[protoreflect.FullName]bool)
	var check func(d protoreflect.MessageDescriptor)
	check = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || d.ParentFile().Package() == "google.protobuf" {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			marked := proto.HasExtension(f.Options(), typesv1.E_IsSecret)
			if !marked && !d.IsMapEntry() {
				t.Errorf("%s does not say whether it is a secret: add [(postern.types.v1.is_secret) = false], or true", f.FullName())
			}
			if m := f.Message(); m != nil && (!marked || !proto.GetExtension(f.Options(), typesv1.E_IsSecret).(bool)) {
				check(m)
			}
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("postern.types.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			check(f.Messages().Get(i))
		}
		return true
	})
	protoregistry.GlobalFiles.RangeFilesByPackage("postern.api.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			if m := f.Messages().Get(i); strings.HasSuffix(string(m.Name()), "Request") {
				check(m)
			}
		}
		return true
	})
	if len(seen) < 60 {
		t.Fatalf("only %d messages were looked at", len(seen))
	}
}
