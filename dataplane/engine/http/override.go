package http

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// fields look in the body for a field that names another method; nil where nobody takes one.
func (x *exchange) fields() *pkghttp.Overrides {
	if x.facts.Method != http.MethodPost || x.talk != nil {
		return nil
	}
	return pkghttp.NewOverrides(x.facts.ContentType, x.r.Header.Get("Content-Encoding") != "")
}

// overridden refuses a body with such a field, unless the task lets the client do with each
// method that it may name what it lets it do with this one. Forms of web apps have it, which
// know of POST alone.
func (x *exchange) overridden(ctx context.Context, field string) error {
	if field == "" {
		return nil
	}
	for _, method := range pkghttp.Overriding {
		if err := x.likewise(ctx, method); err != nil {
			return &postern.Refusal{
				Reason: fmt.Sprintf("the field %q of the body names another method than the request has", field), Rule: x.adm.Decision.Rule,
				Detail: fmt.Sprintf("it goes on where the task allows all of %s just as %s", strings.Join(pkghttp.Overriding, ", "), x.facts.Method), Cause: err,
				Hint: "send the request with that method, without the field",
			}
		}
	}
	return nil
}

// likewise says why the request is not judged with another method as it was with its own. Of a
// body that is on its way no rule reads anything.
func (x *exchange) likewise(ctx context.Context, method string) error {
	f := *x.facts
	f.Method = method
	r := x.r.WithContext(ctx)
	r.Method, r.Body = method, http.NoBody
	other := &exchange{e: x.e, r: r, v: x.v, judged: judged{facts: &f, to: x.to}, body: x.body, buffered: x.buffered}
	adm, _, err := other.prepare(ctx, other.statement())
	if err != nil {
		return err
	}
	is, must := &adm.Decision, &x.adm.Decision
	if is.Verdict != must.Verdict || is.Verdict == postern.VerdictHold && is.Rule != must.Rule || !reflect.DeepEqual(is.Obligations, must.Obligations) {
		return fmt.Errorf("%s is judged otherwise: by %s", method, is.Rule)
	}
	return nil
}
