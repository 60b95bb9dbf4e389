package http

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/content"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// An exchange is one request and its answer. Its flow is guarded, since what the client
// sends and what it gets move at once.
type exchange struct {
	e     *Engine
	c     *request.Conn
	w     http.ResponseWriter
	r     *http.Request
	h     *request.Head
	v     *request.Visit
	began time.Time
	terms *engine.Terms

	judged
	memo     *judged // where what was judged is kept for the requests that follow; nil where it is not
	body     []byte
	buffered bool
	talk     *talk // nil where it is no server of MCP

	mu    sync.Mutex
	flow  engine.Flow
	kept  [2]int
	shade shade // of the request's body
	over  bool

	answered bool // the client has had the head of an answer
}

// What bounds one request.
const (
	maxJudged = 3         // how often it is judged anew because policy changed under it
	maxKept   = 256 << 10 // bytes of a body that are recorded, each way
)

// run judges, forwards and answers.
func (x *exchange) run() {
	ctx, end := x.context()
	defer end()
	err := x.admit(ctx)
	if err == nil && x.talk.silent() {
		x.answerMessages(http.StatusOK, x.talk.refusals)
		return
	}
	if err != nil {
		x.fail(ctx, err)
		return
	}
	out, err := x.forward(ctx)
	if err != nil && ctx.Err() != nil {
		if err = context.Cause(ctx); errors.Is(err, context.Canceled) {
			err = errGone
		}
	}
	if err != nil {
		no := postern.AsRefusal(err)
		out.Code, out.Message = no.Code.String(), no.Reason
	}
	if rerr := errors.Join(x.done(out), x.tell()); rerr != nil && err == nil {
		err = rerr
	}
	if err != nil {
		x.fail(ctx, err)
	}
}

// context is that of the exchange. It ends with it, but where nothing can outlive it.
func (x *exchange) context() (ctx context.Context, end func()) {
	if x.r.ProtoMajor == 1 && x.r.Body == http.NoBody && x.terms.StatementTimeout == 0 {
		return x.c.Stay(x.r, x.v), func() {}
	}
	both, stop := request.Both(x.r.Context(), x.v)
	t := x.terms.StatementTimeout
	if t == 0 {
		return both, stop
	}
	ctx, cancel := context.WithCancelCause(both)
	late := time.AfterFunc(t, func() {
		cancel(x.terms.RanTooLong())
	})
	return ctx, func() {
		late.Stop()
		cancel(nil)
		stop()
	}
}

// fail answers with a refusal, or breaks the answer off where it has begun: a client must
// not take half of one for the whole.
func (x *exchange) fail(ctx context.Context, err error) {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = context.Cause(ctx)
	}
	if x.answered || x.r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	if h := (*heldError)(nil); errors.As(err, &h) {
		request.Pending(x.w, x.r, h.notice)
		return
	}
	if x.talk != nil {
		x.failMessages(postern.AsRefusal(err))
		return
	}
	x.e.refuse(x.w, x.r, err)
}

// admit judges the request and has it admitted, waiting for people where they must say
// yes. One that carries messages goes once each of them has been judged. What was judged
// before with the same headers is admitted as it was, unless policy has changed since.
func (x *exchange) admit(ctx context.Context) error {
	if j, ok := x.h.Memo.(*judged); ok && j.of(x) {
		x.judged, x.memo = *j, j
		err := x.letIn(ctx)
		if err == nil {
			err = x.pass(ctx, x.adm, x.args(), &x.flow)
		}
		if !again(err) {
			return err
		}
		pump.Off(ctx)
		x.judged, x.memo = judged{}, nil
	}
	if err := x.understand(); err != nil {
		return err
	}
	if err := x.letIn(ctx); err != nil {
		return err
	}
	st := x.statement()
	for range maxJudged {
		var err error
		var an *analysis
		if x.adm, an, err = x.prepare(ctx, st); err != nil {
			return err
		}
		x.masks = an.masks
		if an.messages != nil {
			if err := x.converse(ctx, an.messages); err != nil || x.r.Method == http.MethodPost {
				return err
			}
		}
		if x.adm.Decision.Verdict == postern.VerdictHold {
			if _, err := x.buffer(ctx); err != nil {
				return err
			}
		}
		if err := x.overridden(ctx, x.fields().Find(x.body)); err != nil { // one that goes as it comes is looked through then
			return err
		}
		if err := x.pass(ctx, x.adm, x.args(), &x.flow); !again(err) {
			if err == nil && x.talk == nil {
				x.keep()
			}
			return err
		}
	}
	return errUnsteady
}

// judged is what is known of a request before it is admitted.
type judged struct {
	method, uri string // of the one that was judged
	visit       *request.Visit

	target pkghttp.Target
	to     string // the canonical target
	facts  *pkghttp.Facts
	adm    *engine.Admission
	masks  *content.Rule // nil masks nothing
	at     *url.URL      // where it goes; nil until that is asked for
	out    *http.Request // that went there, where the next one can be the very same; nil until one has
}

// of reports whether a request with the same headers is the one that was judged.
func (j *judged) of(x *exchange) bool {
	return j.uri == x.r.RequestURI && j.method == x.r.Method && j.visit == x.v && x.r.Body == http.NoBody
}

// rides reports whether a request is answered without waiting for anybody but its client and
// the resource, because the last one with its headers was the same and had to wait for nobody.
func rides(r *http.Request, h *request.Head) bool {
	j, ok := h.Memo.(*judged)
	if !ok || j.uri != r.RequestURI || j.method != r.Method || j.adm.Waits || j.masks != nil {
		return false
	}
	t := j.visit.Terms()
	return t.TLS.Mode == "disable" && t.StatementTimeout == 0 && !t.Hold && !t.HTTP.Identity && !j.visit.Stale(j.adm) && j.visit.Context().Err() == nil
}

// keep remembers how the request was judged, where that rests on what it is alone.
func (x *exchange) keep() {
	if d := &x.adm.Decision; d.Verdict == postern.VerdictAllow && d.Deps.Cacheable() && x.r.Body == http.NoBody {
		if _, err := x.address(); err != nil {
			return
		}
		j := x.judged
		j.method, j.uri, j.visit = x.r.Method, x.r.RequestURI, x.v
		x.h.Memo, x.memo = &j, &j
	}
}

// errUnsteady refuses what was judged too often.
var errUnsteady = &postern.Refusal{Code: postern.CodeStale, Reason: "policy keeps changing", Hint: "try again"}

// prepare judges a statement.
func (x *exchange) prepare(ctx context.Context, st *engine.Statement) (*engine.Admission, *analysis, error) {
	adm, err := x.v.Prepare(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	an, ok := adm.Analysis.(*analysis)
	if !ok {
		return nil, nil, errors.New("http: an admission of another engine")
	}
	return adm, an, nil
}

// pass has a statement admitted, waiting for people where they must say yes. It is judged
// anew where the error says so.
func (x *exchange) pass(ctx context.Context, adm *engine.Admission, args engine.Args, flow *engine.Flow) error {
	err := x.v.Admit(adm, args, flow)
	if errors.Is(err, engine.ErrHold) {
		if err = x.await(ctx, adm, args); err != nil {
			return err
		}
		err = x.v.Admit(adm, args, flow)
	}
	if err == nil && adm.Decision.Verdict == postern.VerdictHold {
		x.v.Settle(waitKey(adm, args))
	}
	return err
}

func again(err error) bool { return errors.Is(err, engine.ErrStale) || errors.Is(err, engine.ErrHold) }

// letIn waits for people to let the session in where they must.
func (x *exchange) letIn(ctx context.Context) error {
	if !x.terms.Hold {
		return nil
	}
	return x.v.LetIn(ctx)
}

// room says how many of n bytes may go to the client: fewer once the limit is reached.
func (x *exchange) room(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, room := x.flow.Room(0, int64(n))
	return int(min(room, int64(n)))
}

// said reports part of the answer's body as the client gets it.
func (x *exchange) said(p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.kept[0] += len(p); x.kept[0] > maxKept {
		return x.flow.Chunk(engine.ToClient, p)
	}
	return x.flow.Output(engine.Body, p)
}

// errOver ends a body that is still being sent when its answer has ended.
var errOver = errors.New("http: the exchange is over")

// shownHead is the head of an answer as it is recorded.
func shownHead(status int, h http.Header) []byte {
	return request.AppendShown([]byte(statusLine(status)+"\n"), h)
}

// head reports it.
func (x *exchange) head(shown []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flow.Output(engine.Head, shown)
}

func (x *exchange) done(o engine.Outcome) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if rest := x.shade.rest(); len(rest) > 0 {
		if err := x.flow.Output(engine.Asked, rest); err != nil {
			return err
		}
	}
	x.over = true
	o.Affected = -1
	return errors.Join(x.talk.done(&o), x.flow.Done(o))
}
