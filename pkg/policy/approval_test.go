package policy

import (
	"strings"
	"testing"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func TestApprovalRules(t *testing.T) {
	for spec, field := range map[string]string{
		`{all: [{group: a, atLeast: 1}], notRequester: true}`:                                             "",
		`{all: [{group: a, atLeast: 1}], notRequester: false}`:                                            "spec.notRequester",
		`{all: [{group: a, atLeast: 1}], escalate: {after: 5m, group: b}}`:                                "",
		`{all: [{group: a, atLeast: 1}], escalate: {group: b}}`:                                           "spec.escalate.after",
		`{all: [{group: a, atLeast: 1}], escalate: {after: 15m, group: b}}`:                               "spec.escalate.after",
		`{all: [{group: a, atLeast: 1}], escalate: {after: 5m}}`:                                          "spec.escalate.group",
		`{all: [{group: a, atLeast: 1}], escalate: {after: 5m, group: a}}`:                                "spec.escalate.group",
		`{all: [{group: a, atLeast: 1}], hours: {zone: Europe/Berlin, from: "08:00", to: "24:00"}}`:       "",
		`{all: [{group: a, atLeast: 1}], hours: {zone: Local, from: "08:00", to: "18:00"}}`:               "spec.hours.zone",
		`{all: [{group: a, atLeast: 1}], hours: {zone: Mars/Base, from: "08:00", to: "18:00"}}`:           "spec.hours.zone",
		`{all: [{group: a, atLeast: 1}], hours: {zone: UTC, from: "8:00", to: "18:00"}}`:                  "spec.hours.from",
		`{all: [{group: a, atLeast: 1}], hours: {zone: UTC, from: "18:00", to: "08:00"}}`:                 "spec.hours.to",
		`{all: [{group: a, atLeast: 1}], hours: {zone: UTC, days: [friday], from: "08:00", to: "18:00"}}`: "spec.hours.days[0]",
	} {
		objects, err := object.ParseYAML(strings.NewReader("kind: ApprovalRule\nmetadata: {name: r}\nspec: " + spec))
		if err != nil {
			t.Fatal(err)
		}
		found := Validate(objects[0], func(string, string) *typesv1.Object { return nil })
		if (field == "") != (len(found) == 0) || field != "" && found[0].Field != field {
			t.Errorf("%s: found %v, want %q", spec, found, field)
		}
	}
	// Hours that cannot be read are never, and not always.
	if open, _ := ApprovalOpen(&typesv1.ApprovalRuleSpec{Hours: &typesv1.ApprovalHours{}}, time.Now()); open {
		t.Error("hours without a zone are open")
	}
}
