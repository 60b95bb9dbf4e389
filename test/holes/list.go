package holes

// A Hole is one planted fault: its name in pkg/hole, and the entries or classes of the
// catalogue that are tried first.
type Hole struct{ Name, First string }

// Lives are the faults in the life of sessions, grants and leases, which random schedules
// must find: those of controlplane/api/nodeapi.
var Lives = []Hole{
	{Name: "policy-lock"},
	{Name: "session-unjudged"},
	{Name: "session-stale"},
	{Name: "grant-version"},
	{Name: "lease-unbounded"},
	{Name: "lease-unswept"},
	{Name: "lease-kept"},
	{Name: "clock-echo"},
}

// Pools are the faults of connections that sessions have one after the other. The worlds
// of All have none: what finds these are the pooled catalogue and the packages' own tests.
var Pools = []Hole{
	{Name: "reuse-unreset"},
	{Name: "reuse-unproved"},
	{Name: "reuse-any-start"},
	{Name: "reuse-cancelled"},
	{Name: "pool-crossed"},
	{Name: "pool-loan"},
	{Name: "pool-rules"},
	{Name: "pool-unjudged"},
}

// Others are faults beside sessions and statements: in what people have answered, what nodes
// are told and what is written down. The packages' own tests find them.
var Others = []Hole{
	{Name: "approve-tightened"},
	{Name: "publish-unread"},
	{Name: "record-uncut"},
}

// All are the faults of enforcement, of one statement.
var All = []Hole{
	{"analyse-function-pure", "function"},
	{"analyse-function-unnoted", "function"},
	{"analyse-domain", "function naming"},
	{"analyse-operator", "naming"},
	{"analyse-target-verb", "structure"},
	{"analyse-locks", "structure"},
	{"analyse-explain-analyze", "structure"},
	{"analyse-explain-costs", "mask-inference"},
	{"analyse-several", "protocol structure"},
	{"analyse-defined", ""},
	{"analyse-where-role", "mask-inference"},
	{"analyse-join-role", "mask-inference"},
	{"analyse-filter-role", "mask-inference"},
	{"analyse-whole-row", "mask-expression"},
	{"analyse-no-where", "structure"},
	{"analyse-computed-role", "mask-expression"},
	{"rewrite-first-only", "mask-inference"},
	{"rewrite-unmasked", "mask-expression"},
	{"rewrite-copy", "protocol"},
	{"rewrite-target", "structure"},
	{"rewrite-sampled", "mask-inference"},
	{"rewrite-locked", "structure"},
	{"rewrite-unfenced", ""},
	{"rewrite-unfiltered", ""},
	{"mask-first-letter", "mask-expression"},
	{"shape-position", "shape"},
	{"shape-setting", "shape"},
	{"shape-quoted", "shape"},
	{"shape-unmasked", "shape"},
	{"plain-backslash", ""},
	{"wire-function-call", "function-call"},
	{"wire-error-fields", "error-channel scrub"},
	{"wire-error-text", "error-channel"},
	{"wire-startup", "startup"},
	{"wire-deallocate", "namespace"},
	{"wire-prepare", "namespace"},
	{"wire-defined", ""},
	{"wire-stale-unnamed", "namespace"},
	{"wire-no-skip", "namespace skip"},
	{"wire-pinned", "session setting"},
	{"wire-plaintext", "startup tls"},
	{"wire-nul", "nul"},
	{"wire-unmasked", "mask-expression"},
	{"wire-undo", ""},
	{"wire-notification", "notification"},
	{"policy-columns", "read-unlisted"},
	{"policy-result-use", "mask-inference"},
	{"policy-write-columns", "insert-only"},
	{"policy-require-where", "update-every-row"},
	{"policy-functions", "function"},
	{"policy-settings", "session"},
	{"policy-setting-calls", "session"},
	{"policy-listen", "control"},
	{"policy-approval", "structure"},
	{"policy-held-by-name", "protocol"},
}
