// Package holes shows that the tests of enforcement can fail. Faults are planted in
// analyser, rewriter, shapes, wire rules and policy (pkg/hole, behind a build tag); one
// after the other is opened, and the catalogue of evasions, the generated statements or
// the packages' own tests, which hold the server's resolution against the analyser's,
// must find it: `make holes`. Faults in the life of sessions, grants and leases are found
// by random schedules in virtual time, in a minute: `make simulate-holes`.
package holes
